# One command each. `make help` lists them.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BUNDLE := bundles/pix2pix_covid
# A process a core; a file's tests stay together, for what they share is made once a process.
PYTEST := $(PYTHON) -m pytest -n auto --dist loadfile
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo sample test test-all fuzz lint types bench clean set-aside

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## create .venv with this project in place and its pinned dependencies (once)

$(STAMP): pyproject.toml constraints.txt
	@if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  for python in python3 python3.14 python3.13 python3.12 python3.11 none; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  done; \
	  [ $$python != none ] || { echo "error: no Python 3.11 or newer on the PATH; install one and run again" >&2; exit 1; }; \
	  $$python -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "error: $$python has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,tune,export,lite0,tracking,diffusion]"
	@touch $@

demo: setup set-aside ## train a bundle on phantoms, then evaluate it (about 5 minutes on 2 CPU cores; BUNDLE=bundles/NAME)
	$(PYTHON) -m monai.bundle run training --config_file $(BUNDLE)/configs/train.yaml
	$(PYTHON) -m monai.bundle run evaluating --config_file $(BUNDLE)/configs/evaluate.yaml

# An existing run is refused, never overwritten, so the demo moves an earlier one out of the way.
set-aside:
	@earlier=$(BUNDLE)/earlier/$$(date +%Y%m%d-%H%M%S); \
	if [ -d $(BUNDLE)/run ]; then \
	  mkdir -p $$earlier && mv $(BUNDLE)/run $$earlier/ && echo "moved the earlier run/ to $$earlier/"; \
	fi

sample: setup ## samples/contact_sheet.png: what the shipped weights draw, without training (half a minute)
	$(PYTHON) scripts/contact_sheet.py --output samples/contact_sheet.png

test: setup ## the quick tests
	$(PYTEST) -m "not slow and not browser" $(PYTEST_ARGS)

test-all: setup ## the whole suite, with the long round trips and the browser
	$(PYTEST) $(PYTEST_ARGS)

fuzz: setup ## damaged and oddly arranged inputs for every reader, always the same ones (about 3 minutes)
	$(PYTHON) -m tests.fuzz.run

lint: setup ## ruff
	$(PYTHON) -m ruff check .

types: setup ## mypy
	$(PYTHON) -m mypy

bench: setup ## speed and memory against plain baselines: a table and bench.json
	$(PYTHON) scripts/bench.py

clean: ## remove caches and .venv (trained models and data stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
	find common bundles scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

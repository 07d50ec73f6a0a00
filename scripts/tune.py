"""Searches for a bundle's best training settings; every trial is a short training of its own.

Each trial trains with bundles/NAME/configs/train.yaml and is scored by its best checkpoint:
FID * (2 - lesion faithfulness) on the validation patients, lower is better. What is varied stands in
bundles/NAME/search.yaml. The same command continues a search that was stopped or killed.

Example:
    python scripts/tune.py pix2pix_covid --trials 12 --max_epochs 4
    python scripts/tune.py pix2pix_covid --trials 20 --cpu_minutes 10 --dataset_dir DATA --image_size 128
    python -m monai.bundle run training --config_file \
        "['bundles/pix2pix_covid/configs/train.yaml','bundles/pix2pix_covid/tuning/tuned.yaml']"
"""

from __future__ import annotations

import logging
from pathlib import Path

from common.cli import OverridesParser, overrides_of
from common.errors import UserError, install_hook
from common.tools.tune import SearchSettings, tune


def parse(arguments: list[str] | None = None) -> SearchSettings:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = OverridesParser(__doc__, receiver="every trial")
    add = parser.add_argument
    add("name", metavar="NAME", help="the bundle, e.g. pix2pix_covid")
    add(
        "--trials", type=int, default=12, help="trials in all, those of an earlier call included (default 12)"
    )
    add("--max_epochs", type=int, help="epochs of a trial at most (default in search.yaml)")
    add("--cpu_minutes", type=float, help="CPU time of a trial at most; what is spent first ends it")
    add("--output_dir", type=Path, help="folder of the search (default bundles/NAME/tuning)")
    add("--config_file", type=Path, nargs="+", help="training config, overlays after it (default train.yaml)")
    add("--seed", type=int, default=0, help="of the search and its trainings (default 0)")
    known, rest = parser.parse_known_args(arguments)
    overrides = overrides_of(rest)
    budget = {"max_epochs": known.max_epochs, "cpu_minutes": known.cpu_minutes}
    overrides |= {key: value for key, value in budget.items() if value is not None}
    for key in ("trials", "max_epochs", "cpu_minutes"):
        if getattr(known, key) is not None and getattr(known, key) <= 0:
            raise UserError(f"--{key} {getattr(known, key)}: must be above 0")
    return SearchSettings(
        known.name, known.trials, known.seed, known.output_dir, known.config_file, overrides
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    settings = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    tune(settings)


if __name__ == "__main__":
    install_hook()
    main()

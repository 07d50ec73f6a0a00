"""The quick start as printed: the chain, its baselines, samples and composites, with the smallest budgets."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.pipeline import chest_scans
from tests.bundles.case import quick_start
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.runs import ROOT, command, finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

WORK = "bundles/lung_two_stage/work"
SMALL: dict[str, dict[str, Any]] = {
    "extraction": {"slices_per_patient": 6},
    "generation": {
        "real_nodules": 10,
        "generated_nodules": 4,
        "real_healthy_slices": 10,
        "generated_healthy_slices": 2,
    },
    "composition": {"groups": 20, "count": 24, "per_shard": 12},
    "enhancer": {"composites": 12},
    "diagnosis": {"synthetic": 12},
    "evaluation": {"num_samples": 12, "resamples": 5, "synthetic": 12, "seeds": 1, "budget#iterations": 2},
    "baselines_table_3": {"num_samples": 12, "resamples": 5},
}


def smallest_budgets(folder: Path) -> Path:
    """An overlay on ``pipeline.yaml``: an epoch for each training, few images for the others."""
    parser = ConfigParser()
    parser.read_config(str(CASE.configs / "pipeline.yaml"))
    overlay: dict[str, Any] = {}
    for part, chain in (("stages", "chain"), ("baseline_stages", "baseline_chain")):
        for stage in parser.get_parsed_content(chain).stages:
            if stage.name in parser[part]:
                trains = {"max_epochs": 1, "val_interval": 1} if stage.run == "training" else {}
                if stage.name.startswith("slices_"):  # there are few
                    trains["batch_size"] = 4
                settings = {**stage.settings, **trains, **SMALL.get(stage.name, {})}
                overlay[f"{part}#{stage.name}#settings"] = settings
    file = folder / "smallest.yaml"
    file.write_text(yaml.safe_dump(overlay))
    return file


def run_printed(words: list[str], work: Path, more: list[str]) -> None:
    """Runs a command of the README, ``work`` in the place of the bundle's own folder."""
    words = [str(work) + word.removeprefix(WORK) if word.startswith(WORK) else word for word in words]
    line = [sys.executable, *words, *more]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"


def test_the_quick_start_works_as_printed(tmp_path: Path) -> None:
    work, small = tmp_path / "work", smallest_budgets(tmp_path)
    scans = str(chest_scans(tmp_path / "scans"))
    ran = []
    for words in quick_start(CASE.root / "docs" / "README.md"):
        if words[0] == "scripts/synthesize.py":
            small_set = ["--output", str(tmp_path / "shards"), "--count", "12", "--groups", "10"]
            run_printed(words, work, small_set)  # the last value counts
        elif words[3] == "inference":
            model = ["--ckpt_path", str(work / "nodules" / "models" / "model.pt")]
            run_printed(words, work, [*model, "--output_dir", str(tmp_path / "samples")])
        else:
            at = words.index("--config_file") + 1
            parts = [*words[2:at], str([words[at], str(small)]), *words[at + 1 :]]
            parts += ["--work_dir", str(work), "--dataset_dir", scans]
            run = finished(command(parts, OMP_NUM_THREADS="1"), timeout=2400)
            assert run.code == 0, f"{shlex.join(words)}\n{run.err}"
        ran.append(words[3] if words[0] == "-m" else words[0])
    assert ran == ["pipeline", "baselines", "inference", "scripts/synthesize.py"]
    for table in ("segmentation/eval", "nodules", "baselines_nodules", "baselines_slices"):
        assert list((work / "tables" / table).glob("*.json")), table
    assert (tmp_path / "samples" / "grid.png").is_file()
    assert len(Composites(tmp_path / "shards")) == 12

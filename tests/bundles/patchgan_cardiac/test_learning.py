"""The real volumes and slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.data.labels import STRUCTURES
from common.files import read_json
from tests.bundles.patchgan_cardiac.case import arguments
from tests.bundles.runs import forked

SMALL = {
    "image_size": 64,
    "network_def#levels": 6,
    "network_def#width": 8,
    "discriminator_def#width": 8,
    "max_epochs": 1,
    "val_interval": 1,
}


def trained_and_evaluated(data: Path, folder: Path, configs: list[str], **more: Any) -> dict[str, Any]:
    """What stands beside the model, with the evaluation's result as ``result``."""
    where = {"dataset_dir": data, "store_dir": folder / "slices", "output_dir": folder / "run"}
    trained = forked(arguments("training", configs, **SMALL, **where, **more), folder / "training")
    assert trained.code == 0, trained.err
    evaluated = forked(arguments("evaluating", "evaluate", **where), folder / "evaluating")
    assert evaluated.code == 0, evaluated.err
    info = read_json(folder / "run" / "models" / "model.json")
    return {**info, "result": read_json(folder / "run" / "eval" / "metrics.json")}


@pytest.mark.slow
@pytest.mark.realdata
def test_mr_volumes_of_acdc(shared_data: Path, tmp_path: Path) -> None:
    info = trained_and_evaluated(shared_data / "acdc", tmp_path, ["train", "mr"])
    assert info["classes"] == ["LV", "RV", "Myo"] and info["is_hu"] is False
    patients = [set(part) for part in info["splits"].values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 16
    assert set(info["result"]["structures"]) == {"LV", "RV", "Myo"}


@pytest.mark.slow
@pytest.mark.realdata
def test_ct_slices_with_seven_structures(shared_data: Path, tmp_path: Path) -> None:
    info = trained_and_evaluated(shared_data / "cardiac_chd", tmp_path, ["train"], batch_size=2)
    assert set(info["classes"]) > set(STRUCTURES) and info["nominal_hu"] is True
    assert sum(map(len, info["splits"].values())) == 5 and sum(info["slices"].values()) == 24

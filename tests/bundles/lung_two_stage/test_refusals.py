"""Bad scans and annotations: one line that names the file, exit 1, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bundles.runs import ROOT, forked
from tests.common.data.made_scans import HEADER, write_luna, write_picture, write_volume

SERIES = ("1.1", "1.2", "1.3", "1.4")
CENTRE = "15,26,36"
"""World mm of the voxel (3, 4, 5) of `write_luna`."""


def luna(folder: Path) -> Path:
    """Four good scans."""
    for series in SERIES:
        write_luna(folder, "", series)
    lines = [f"{series},{CENTRE},4\n" for series in SERIES]
    (folder / "annotations.csv").write_text(HEADER + "".join(lines))
    return folder


def annotation_outside(folder: Path) -> str:
    table = luna(folder) / "annotations.csv"
    table.write_text(table.read_text().replace(f"1.1,{CENTRE}", "1.1,150,26,36"))
    return "1.1.mhd: the annotation at (150, 26, 36) mm lies outside the scan"


def series_without_annotations(folder: Path) -> str:
    table = luna(folder) / "annotations.csv"
    table.write_text(table.read_text().replace(f"1.3,{CENTRE},4\n", ""))
    return "1.3.mhd: its series has no annotations"


def scan_without_its_raw(folder: Path) -> str:
    (luna(folder) / "1.4.raw").unlink()
    return "1.4.mhd: its data file 1.4.raw is missing"


def unknown_category(folder: Path) -> str:
    for number in range(4):
        mask = np.zeros((16, 16, 3), np.uint8)
        mask[4:9, 4:9, 1] = 3 if number == 2 else 2
        write_volume(folder, f"patient_{number}", np.full(mask.shape, -800), mask)
    (folder / "categories.json").write_text(json.dumps(["solid", "spiculated"]))
    return "patient_2.nii.gz: 3 is no known category; expected 0 none, 1 solid, 2 spiculated"


def empty_nodule_set(folder: Path) -> str:
    for number in range(4):
        empty = np.zeros((32, 32))
        write_picture(folder, f"LIDC-IDRI-000{number}_nodule-0", empty + 40, empty)
    return "no slice has a nodule"


TROUBLES = [
    annotation_outside,
    series_without_annotations,
    empty_nodule_set,
    pytest.param(scan_without_its_raw, marks=pytest.mark.slow),
    pytest.param(unknown_category, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("spoil", TROUBLES, ids=lambda spoil: spoil.__name__)
def test_bad_scans_are_one_line(spoil: Callable[[Path], str], tmp_path: Path) -> None:
    said = spoil(tmp_path / "data")
    config = ROOT / "bundles" / "lung_two_stage" / "configs" / "train_segmentation.yaml"
    settings = ["--dataset_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "run")]
    tiny = ["--image_size", "16", "--batch_size", "1", "--device", "cpu", "--max_epochs", "1"]
    run = forked(["run", "training", "--config_file", str(config), *settings, *tiny], tmp_path / "log")
    assert said in run.error
    assert not (tmp_path / "run").exists()

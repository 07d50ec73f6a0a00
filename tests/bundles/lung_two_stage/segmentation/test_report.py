from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundles.lung_two_stage.segmentation.evaluation import compare
from bundles.lung_two_stage.segmentation.methods import EmptyMask
from bundles.lung_two_stage.segmentation.report import FOUND, TRUE, table, write_report
from common.data.intensity import Window
from tests.bundles.lung_two_stage.segmentation.made import Told, ball_mask, scan_of

NODULE = np.s_[0:1, 60:70, 130:140]


def test_the_report_of_a_comparison(tmp_path: Path) -> None:
    mask = ball_mask((1, 120, 150), NODULE)
    scans = [scan_of(mask, "one"), scan_of(mask[:, :, 50:], "two")]
    exact = Told("exact", {"one": [((0.0, 64.5, 134.5), 0.7)]}, {"one": mask, "two": mask[:, :, 50:]})
    comparison = compare([exact, Told("points", {}), EmptyMask()], scans, 2)
    write_report(comparison, tmp_path, Window(-1000, 400), {"seed": 3})
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == 3
    text = (tmp_path / "table.txt").read_text()
    assert text.splitlines()[2].startswith("exact") and "0.500 [-]" in text
    points = next(line for line in text.splitlines() if line.startswith("points"))
    assert points.rstrip().endswith("-")  # no Dice of a method without masks
    assert "2 scans of 2 patients, 2 nodules in 2 of 2 slices" in text
    assert "warning: only 2 patients: no intervals" in text
    with Image.open(tmp_path / "panel.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in (TRUE, FOUND):
        shown = np.rint(np.array(colour) * 255)
        assert (np.abs(pixels - shown).max(1) <= 1).sum() > 100


def test_the_table_says_what_its_numbers_are() -> None:
    result = compare([EmptyMask()], [scan_of(ball_mask((1, 8, 8), np.s_[0:1, 2:5, 2:5]))], 1).result
    text = table(result)
    assert "within the nodule's radius of its centre" in text and "accuracy" in text
    assert len([line for line in text.splitlines() if line.startswith("empty mask")]) == 1
    assert "0.000" in text and pytest.approx(0) == result["methods"]["empty mask"]["cpm"]["mean"]

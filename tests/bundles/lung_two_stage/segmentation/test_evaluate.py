from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundles.lung_two_stage.segmentation.evaluate import (
    FOUND,
    TRUE,
    NoduleSensitivity,
    compare,
    mark_slices,
    write_report,
    write_table,
)
from bundles.lung_two_stage.segmentation.inference import EmptyMask
from common.data.intensity import Window
from common.data.nodules import Nodule
from common.errors import UserError
from common.metrics.detection import Candidate
from tests.bundles.lung_two_stage.segmentation.made import Told, ball_mask, scan_of

FIRST, SECOND = np.s_[2:4, 2:6, 2:6], np.s_[6:8, 10:14, 10:14]


def two_scans() -> list:
    """Scan a has two nodules, scan b none."""
    return [scan_of(ball_mask((10, 16, 16), FIRST, SECOND), "a"), scan_of(ball_mask((10, 16, 16)), "b")]


def test_table_one_of_known_answers() -> None:
    """One of two nodules found with one false positive in each scan; a mask that covers half of the truth."""
    half = ball_mask((10, 16, 16), FIRST)
    false = ball_mask((10, 16, 16), np.s_[0:1, 0:2, 0:4])
    candidates = {"a": [((5.0, 3.5, 3.5), 0.9), ((18.0, 0.0, 15.0), 0.6)], "b": [((0.0, 8.0, 8.0), 0.5)]}
    method = Told("half", candidates, {"a": half, "b": false})
    result = compare([method, EmptyMask()], two_scans(), 2).result
    assert result["data"] == {
        "scans": 2,
        "patients": 2,
        "nodules": 2,
        "slices": 20,
        "slices_with_nodules": 4,
        "excluded": 0,
    }
    line = result["methods"]["half"]
    assert line["sensitivity"]["mean"] == 0.5
    assert line["candidates_per_scan"]["mean"] == 1.5 and line["false_positives_per_scan"]["mean"] == 1.0
    assert line["sensitivity_at"]["0.125"]["mean"] == 0.5  # the hit is the surest candidate
    # a: slices 2 and 3 told, 6 and 7 missed, 8 and 9 wrongly told; b: slices 0 and 1 wrongly told
    assert line["slice_accuracy"]["mean"] == pytest.approx(14 / 20)
    assert line["dice"] == {"mean": pytest.approx(2 / 3), "interval": None, "n": 1, "patients": 1}
    assert line["pixel_accuracy"]["mean"] == pytest.approx(1 - (32 + 8) / (2 * 10 * 16 * 16))
    assert line["pooled_dice"]["mean"] == pytest.approx(2 * 32 / (32 + 8 + 64))
    empty = result["methods"]["empty mask"]
    assert empty["sensitivity"]["mean"] == 0 and empty["candidates_per_scan"]["mean"] == 0
    assert empty["dice"]["mean"] == 0 and empty["slice_accuracy"]["mean"] == pytest.approx(16 / 20)


def test_candidates_in_excluded_findings_count_neither_way() -> None:
    """The false positive of scan a lies in a finding that LUNA16 excludes; slices forget it too."""
    first, second = two_scans()
    finding = Nodule((9.0, 0.0, 15.0), (18.0, 0.0, 15.0), 6.0)
    candidates = {"a": [((5.0, 3.5, 3.5), 0.9), ((18.0, 0.0, 15.0), 0.8)], "b": [((0.0, 8.0, 8.0), 0.7)]}
    before, after = (
        compare([Told("x", candidates)], [scan, second], 2).result
        for scan in (first, replace(first, excluded=(finding,)))
    )
    assert (before["data"]["excluded"], after["data"]["excluded"]) == (0, 1)
    for result, false, right in ((before, 1.0, 14), (after, 0.5, 16)):
        line = result["methods"]["x"]
        assert line["false_positives_per_scan"]["mean"] == false and line["sensitivity"]["mean"] == 0.5
        assert line["candidates_per_scan"]["mean"] == false + 0.5
        assert line["slice_accuracy"]["mean"] == pytest.approx(right / 20)


def test_what_is_drawn_in_excluded_findings_is_not_false() -> None:
    """Scan a: a finding of 2 mm around a voxel, 7 voxels of 1 mm apart from the first nodule, one in it."""
    first, second = two_scans()
    findings = tuple(Nodule((z / 2, y, x), (z, y, x), 2.0) for z, y, x in ((18.0, 8.0, 8.0), (4.0, 3.0, 3.0)))
    drawn = ball_mask((10, 16, 16), FIRST, np.s_[9:10, 7:10, 7:10])
    method = Told("x", {}, {"a": drawn, "b": ball_mask((10, 16, 16))})
    before, after = (
        compare([method], [scan, second], 2).result["methods"]["x"]
        for scan in (first, replace(first, excluded=findings))
    )
    assert before["dice"]["mean"] == pytest.approx(2 * 32 / (32 + 9 + 64))
    assert after["dice"]["mean"] == pytest.approx(2 * 32 / (32 + 4 + 64))  # 5 of 9 lie in the finding
    assert after["pixel_accuracy"]["mean"] == pytest.approx(1 - (32 + 4) / (2 * 10 * 16 * 16))


def test_the_unsure_candidates_count_for_the_curve_and_not_for_the_slices() -> None:
    """A nodule that is found with 0.1 buys sensitivity at the rates that its false positives allow."""
    result = {"a": [((5.0, 3.5, 3.5), 0.9), ((13.0, 11.5, 11.5), 0.1)], "b": [((0.0, 8.0, 8.0), 0.2)]}
    line = compare([Told("x", result)], two_scans(), 2).result["methods"]["x"]
    at = {rate: value["mean"] for rate, value in line["sensitivity_at"].items()}
    assert (at["0.25"], at["0.5"], at["8"]) == (0.5, 1.0, 1.0)
    assert line["slice_accuracy"]["mean"] == pytest.approx((2 + 16) / 20)  # slices 2 and 3 told, 6 and 7 not


def test_a_method_without_masks_has_no_dice() -> None:
    comparison = compare([Told("points", {})], two_scans(), 2, shown=1)
    assert "dice" not in comparison.result["methods"]["points"]
    (example,) = comparison.examples
    assert example.masks == {} and example.truth.sum() == 16 and example.hu.max() == 30


def test_a_candidate_holds_in_the_slices_within_its_radius() -> None:
    scan = two_scans()[0]  # slices 2 mm apart
    candidates = [Candidate("a", (4.5, 0.0, 0.0), 1.0, 2.0), Candidate("a", (17.1, 0.0, 0.0), 1.0, 0.1)]
    assert np.flatnonzero(mark_slices(candidates, scan)).tolist() == [2, 3, 9]
    assert not mark_slices([], scan).any()


def test_nothing_to_compare() -> None:
    with pytest.raises(UserError, match="no scans"):
        compare([EmptyMask()], [], 0)
    with pytest.raises(UserError, match="a name of its own"):
        compare([EmptyMask(), EmptyMask()], two_scans(), 2)


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
    text = write_table(result)
    assert "within the nodule's radius of its centre" in text and "accuracy" in text
    assert len([line for line in text.splitlines() if line.startswith("empty mask")]) == 1
    assert "0.000" in text and pytest.approx(0) == result["methods"]["empty mask"]["cpm"]["mean"]


def test_sensitivity_counts_touched_nodules() -> None:
    true, result = torch.zeros(4, 1, 6, 6), torch.zeros(4, 1, 6, 6)
    true[:3, 0, 2:4, 2:4] = 1  # the fourth has none
    result[0, 0, 3, 3] = result[1, 0, 0, 0] = result[3, 0, 1, 1] = 1
    metric = NoduleSensitivity()
    metric.update((result[:2], true[:2]))
    metric.update((result[2:], true[2:]))
    assert metric.compute() == 1 / 3
    metric.reset()
    assert metric.compute() == 0

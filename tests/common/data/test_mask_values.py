"""Masks that are nearly labels: rounded, thresholded, ignored or refused, by one rule for all readers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.mask_values import (
    check_ignored,
    check_scale,
    check_threshold,
    structure_mask_of,
    whole_labels,
)
from common.errors import UserError


def test_labels_within_a_hundredth_are_rounded_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.array([0, 0.99998, 2.004, -0.003], np.float32)
    for name in ("a.nii", "b.nii"):
        assert whole_labels(values, tmp_path / name).tolist() == [0, 1, 2, 0]
    assert len(caplog.records) == 1 and "a.nii: its values, such as 0.99998, are rounded" in caplog.text
    caplog.clear()
    assert whole_labels(np.array([0.0, 7.0]), tmp_path / "other" / "c.nii").tolist() == [0, 7]
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0, 0.3, 0.9], r"holds 0\.3 and other values between whole numbers.*--mask_threshold"),
        ([0, 0.985], r"holds 0\.985 .*--mask_threshold, such as 0\.5"),
        ([-1.0, 0, 1], r"value -1 is no label; .*--ignore_value -1"),
        ([-100, 0, 1], r"--ignore_value -100"),
        ([-900, -400, -30, 40], "many negative values, so it is no label file; is it an image"),
        ([np.nan, 1], "NaN or infinite"),
        ([np.inf, 1], "NaN or infinite"),
    ],
)
def test_what_is_no_label_is_refused(values: list[float], says: str) -> None:
    with pytest.raises(UserError, match=rf"^m\.nii: .*{says}") as caught:
        whole_labels(np.array(values), Path("m.nii"))
    assert "\n" not in str(caught.value)


def test_a_threshold_makes_labels_of_soft_masks_and_ignored_values_are_background() -> None:
    probabilities = np.array([0, 0.2, 0.5, 0.51, 1.0], np.float32)
    assert whole_labels(probabilities, Path("m"), 0.5).tolist() == [0, 0, 1, 1, 1]
    assert whole_labels(np.array([-1, 0, 1, 2]), Path("m"), ignored=[-1]).tolist() == [0, 0, 1, 2]
    assert whole_labels(np.array([0, 200, 255], np.uint8), Path("m"), 128, [255]).tolist() == [0, 1, 0]
    assert whole_labels(np.array([0, 1.0, 255.0]), Path("m"), 0.5, [-1, 255]).tolist() == [0, 1, 0]
    assert whole_labels(np.array([False, True]), Path("m")).tolist() == [0, 1]


def test_one_structure_of_several_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert structure_mask_of(np.array([0, 255]), tmp_path / "a").tolist() == [0, 1] and not caplog.records
    with caplog.at_level(logging.WARNING):
        assert structure_mask_of(np.array([0, 1, 2, 3]), tmp_path / "a").tolist() == [0, 1, 1, 1]
    assert "a: the labels 1, 2, 3 all count as one structure" in caplog.text
    wanted = structure_mask_of(np.array([0, 1, 2, 3]), tmp_path / "a", wanted=(3,), background=(0, 1, 2, 3))
    assert wanted.tolist() == [0, 0, 0, 1]  # a registry's list of all values has the wanted ones too
    ignored = structure_mask_of(np.array([0, 1, 255]), tmp_path / "a", None, (255,))
    assert ignored.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0, 1, 255], "holds 1 beside 255; .*--mask_threshold 128 .*--ignore_value 255"),
        ([0, 2, 3, 252, 254], "holds 2, 3, 252 beside 254"),  # few values of JPEG
        (list(range(20)), "holds 20 different values, .*--mask_threshold"),
        ([*range(5), *range(240, 256)], "holds 21 different values, .*--mask_threshold"),  # JPEG
    ],
)
def test_lossy_masks_and_values_to_ignore_are_refused(values: list[int], says: str) -> None:
    with pytest.raises(UserError, match=rf"^m\.png: {says}"):
        structure_mask_of(np.array(values, np.uint8), Path("m.png"))
    assert structure_mask_of(np.array(values, np.uint8), Path("m.png"), 128).sum() == sum(
        v >= 128 for v in values
    )


def test_a_threshold_of_another_scale_is_refused() -> None:
    with pytest.raises(UserError, match=r"reach 0\.9, so mask_threshold 128 leaves nothing; .* 0\.5"):
        check_scale(0.9, np.array([0, 0.4, 0.9]), 128, Path("m.nii"))
    with pytest.raises(UserError, match=r"reach 255, so mask_threshold 0\.5 takes all but 0; .* 128"):
        check_scale(255, np.array([0, 3, 255]), 0.5, Path("m.png"))
    check_scale(255, np.array([0, 255]), 0.5, Path("m.png"))
    check_scale(40, np.array([0, 40], np.uint8), 128, Path("m.png"))  # a soft mask that is nearly empty
    check_scale(0.9, np.array([0, 0.4, 0.9]), 0.95, Path("m.nii"))
    check_scale(255, np.array([0, 0.4, 255]), 0.5, Path("m.nii"), ignored=[255])


@pytest.mark.parametrize("bad", ["much", 0, -0.5, float("nan"), [0.5]])
def test_a_threshold_that_is_none(bad: Any) -> None:
    with pytest.raises(UserError, match=r"^mask_threshold .*: give the least value"):
        check_threshold(bad)


@pytest.mark.parametrize("bad", ["much", 0.5, [1, "x"], 0])
def test_ignored_values_that_are_none(bad: Any) -> None:
    with pytest.raises(UserError, match=r"^ignore_value "):
        check_ignored(bad)

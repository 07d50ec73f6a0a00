"""Which values can be HU, what is added to them, and what is black and white of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.data.hu_calibration import (
    SAMPLE_VOXELS,
    Calibration,
    GrayValues,
    calibrate,
    check_source_range,
    find_problem,
    offset_to_hu,
)
from common.errors import UserError

RANDOM = np.random.default_rng(3)


def chest(scale: float = 1.0, offset: float = 0.0) -> GrayValues:
    """Air, lung, fat, tissue and bone with noise, in the shares of a chest CT; linearly changed."""
    parts = [(-1000, 300), (-850, 250), (-100, 150), (40, 280), (600, 20)]
    hu = np.concatenate([np.full(10 * count, level) for level, count in parts])
    return GrayValues((hu + RANDOM.normal(0, 12, len(hu))) * scale + offset)


def heart() -> np.ndarray:
    """A crop within a body: fat, muscle and blood with contrast agent, no lung."""
    return np.concatenate([RANDOM.normal(level, 15, 500) for level in (-90, 60, 380)])


@pytest.mark.parametrize(
    "values",
    [
        chest(),
        GrayValues(heart()),
        GrayValues(RANDOM.normal(-700, 130, 9000)),  # a box in a lung
        GrayValues(np.where(np.arange(9000) < 2500, -3024, RANDOM.normal(-200, 300, 9000))),  # padding
        GrayValues(np.linspace(-160, 240, 500)),  # clipped to a window
        GrayValues(np.full(100, -1000)),  # air alone
    ],
)
def test_what_can_be_hu(values: GrayValues) -> None:
    assert find_problem(values) is None and offset_to_hu(values, None, "a.nii.gz") == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (chest(offset=1024), "none of air|above 700 HU"),  # stored values
        (
            GrayValues(np.concatenate([heart() + 1024, np.full(400, -700)])),
            "above 700 HU",
        ),  # padded with -1724
        (chest(offset=-1024), "below air .* as if rescaled twice"),  # the intercept was added twice
        (chest(scale=2, offset=-1024), "below air"),  # the slope too
        (GrayValues(heart() - 1024), "no values of lung or tissue|below air"),
        (chest(scale=-1), "above 700 HU"),  # inverted
        (chest(scale=1 / 400, offset=0.5), "span too little for HU .normalised"),  # z scores
        (GrayValues(np.linspace(-1, 1, 100)), "span too little"),
        (GrayValues(np.linspace(-0.02, 1.03, 100)), "span too little"),  # resampled 0..1
        (GrayValues(np.linspace(-3, 259, 500)), "none of air"),  # resampled 0..255
        (GrayValues(np.arange(4096)), "holds values up to 4095 but none of air"),
        (GrayValues(np.arange(65536).astype(np.uint16)), "none of air"),  # HU wrapped in 16 bits
    ],
)
def test_what_cannot_be_hu_is_refused_in_one_line(values: GrayValues, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        offset_to_hu(values, None, "a.nii.gz")
    text = str(caught.value)
    assert text.startswith("a.nii.gz: ") and "\n" not in text
    assert "--hu_offset -1024" in text and "--source_range '[0, 4095]'" in text
    assert offset_to_hu(values, 0, "a.nii.gz") == 0  # the user says that they are HU


@pytest.mark.parametrize(
    ("values", "offset", "expected"),
    [
        (chest(), -1024, 0),  # HU already: left alone in a mixed set
        (chest(offset=1024), -1024, -1024),
        (chest(offset=1024), "-1024", -1024),  # from a command line
        (chest(offset=32768), -32768, -32768),
        (chest(offset=-1024), 1024, 1024),
        (
            GrayValues(np.concatenate([chest(offset=1024).sample, np.full(900, -976)])),
            -1024,
            -1024,
        ),  # padding
        (GrayValues(np.array([-20, 3000])), -1024, -1024),  # noise below what stands for air
        (GrayValues(np.array([-1000, 400])), -1024, 0),
    ],
)
def test_what_is_added(values: GrayValues, offset: Any, expected: float) -> None:
    assert offset_to_hu(values, offset, "a.nii.gz") == expected


def test_an_offset_that_does_not_help_or_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"^a\.nii\.gz: with hu_offset 3000 it holds values up to \d+"):
        offset_to_hu(chest(offset=1024), 3000, "a.nii.gz")
    with pytest.raises(UserError, match="hu_offset lung: give what to add to stored values, as -1024"):
        offset_to_hu(chest(), "lung", "a.nii.gz")  # type: ignore[arg-type]


def test_padding_is_no_air() -> None:
    stored = np.array([[-2000, 0], [1064, 3000]], np.int16)  # outside of the circle; HU + 1024 within
    for values, lowest, highest, kept in (
        (stored, 0, 3000, 3),
        (stored.astype(np.float32) - 1024, -1024, 1976, 3),  # padded HU have their air
        (np.full((2, 2), -3000, np.int16), -3000, -3000, 4),
    ):
        summary = GrayValues(values)
        assert (summary.lowest, summary.highest, len(summary.sample)) == (lowest, highest, kept)


def test_large_volumes_are_judged_by_a_part_of_their_voxels() -> None:
    volume = RANDOM.normal(0, 1, (200, 160, 90))
    volume[:100] -= 500
    summary = GrayValues(volume)
    assert SAMPLE_VOXELS / 4 < len(summary.sample) < 4 * SAMPLE_VOXELS
    assert GrayValues(volume[:, ::-1].T).sample.size == summary.sample.size
    assert summary.share(-100, 100) == pytest.approx(0.5, abs=0.05)


def test_a_given_range_is_for_files_that_are_not_hu() -> None:
    twelve_bits = GrayValues(np.arange(4096))
    assert calibrate(twelve_bits, None, None, [0, 4095], "a") == Calibration(False, 0.0, (0, 4095))
    assert calibrate(chest(), None, None, [0, 4095], "a").is_hu
    assert calibrate(GrayValues(np.array([0, 99])), (0, 255), None, [0, 102], "a")[2] == (0, 102)
    assert calibrate(GrayValues(np.array([0, 99])), (0, 255), None, [255, 0], "a")[2] == (255, 0)  # inverted


@pytest.mark.parametrize(
    ("highest", "white", "fitting"),
    [(4095, 65535, 4095), (1023, 65535, 4095), (200, 65535, 255), (9, 255, 9), (70000, 65535, 70000)],
)
def test_values_in_a_small_part_of_their_types_range_are_refused(
    highest: int, white: int, fitting: int
) -> None:
    values = GrayValues(np.array([0, highest]))
    with pytest.raises(UserError, match=rf"a\.png: its values reach {highest}.* '\[0, {fitting}\]'"):
        calibrate(values, (0, white), None, None, "a.png")
    assert calibrate(values, (0, white), 0, None, "a.png") == Calibration(False, 0.0, (0, white))


@pytest.mark.parametrize("bad", [[0], [0, 1, 2], "lung", [5, 5], [0, float("nan")], 7])
def test_a_range_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(UserError, match=r"^source_range .*black and white"):
        check_source_range(bad)

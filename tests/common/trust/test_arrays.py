from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.data.intensity import Window
from common.errors import UserError
from common.trust.arrays import array_slices, meaning
from common.trust.settings import ReadingSettings
from tests.common.trust.folders import textures

SETTINGS = ReadingSettings(32, Window(-1000, 275))


@pytest.mark.parametrize(
    ("array", "is_hu", "limits"),
    [
        (np.array([[0, 9]], np.uint8), False, (0, 255)),
        (np.array([[0, 9]], np.uint16), False, (0, 65535)),
        (np.array([[0, 9]], np.int16), True, (0, 255)),
        (np.array([[0, 0.5]], np.float32), False, (0, 1)),
        (np.array([[-1, 0.5]], np.float64), False, (-1, 1)),
        (np.array([[-700.0, 40]], np.float32), True, (0, 255)),
    ],
)
def test_what_values_mean(array: np.ndarray, is_hu: bool, limits: tuple[float, float]) -> None:
    found = meaning(array, "made.npy")
    assert found.is_hu == is_hu and found.source_range == limits and found.values.dtype == np.float32


def test_a_bank_gives_its_gray_values_with_their_nodules_and_patients(tmp_path: Path) -> None:
    hu = textures(3, 0).astype(np.int16) * 5 - 1000
    np.save(tmp_path / "hu.npy", hu)
    alpha = np.zeros((3, 32, 32), np.uint8)
    alpha[1, :4, :6], alpha[1, 4, :6] = 128, 127
    np.save(tmp_path / "alpha.npy", alpha)
    records = [{"name": f"n{place}", "patient": patient} for place, patient in enumerate(["p1", "", "p1"])]
    (tmp_path / "records.json").write_text(json.dumps(records))
    found = array_slices(tmp_path, SETTINGS)
    assert [each.patient for each in found] == ["p1", "hu", "p1"] and found[2].name == "hu.npy#000002"
    np.testing.assert_allclose(found[1].unit, textures(3, 0)[1] / 255, atol=1e-6)
    assert found[1].label is not None and found[1].label[:4, :6].all() and found[1].label.sum() == 24
    np.save(tmp_path / "alpha.npy", alpha[:2])
    with pytest.raises(UserError, match="2 entries for 3 images"):
        array_slices(tmp_path, SETTINGS)
    (tmp_path / "records.json").write_text("[{}]")
    with pytest.raises(UserError, match="1 records for 3 images"):
        array_slices(tmp_path, SETTINGS)


def test_files_of_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(UserError, match=r"a.npy: has shape \(2, 3, 4, 4\)"):
        array_slices(tmp_path, SETTINGS)
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object))
    with pytest.raises(UserError, match=r"a.npy: cannot be read"):
        array_slices(tmp_path, SETTINGS)
    with pytest.raises(UserError, match="no gray values"):
        meaning(np.zeros((2, 2), np.complex64), "made.npy")

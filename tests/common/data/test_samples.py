from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.samples import ORIENTATIONS, Sample, orient, restore_orientation

SQUARE = np.array([[1, 2, 3], [4, 5, 6]])


def test_known_orientations() -> None:
    assert orient(SQUARE, "rot90").tolist() == [[3, 6], [2, 5], [1, 4]]
    assert orient(SQUARE, "transpose").tolist() == [[1, 4], [2, 5], [3, 6]]
    assert orient(SQUARE, "anti_transpose").tolist() == [[6, 3], [5, 2], [4, 1]]
    assert orient(SQUARE, "flip_lr").tolist() == [[3, 2, 1], [6, 5, 4]]


def test_the_eight_orientations_differ() -> None:
    assert (
        len({orient(SQUARE, name).tobytes() + bytes(orient(SQUARE, name).shape) for name in ORIENTATIONS})
        == 8
    )


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_restoring_is_the_inverse(name: str) -> None:
    assert restore_orientation(orient(SQUARE, name), name).tolist() == SQUARE.tolist()


def test_names_are_safe_and_unique() -> None:
    sample = Sample(Path("a/case 1.nii.gz"), None, "case 1", index=12, group="phantom")
    assert sample.name == "phantom-case%201-z012"
    assert Sample(Path("a/x.1.png"), None, "x").name == "x.1"


def test_the_person_is_what_moves_between_splits() -> None:
    assert Sample(Path("a.png"), None, "scan", person="somebody").unit == "somebody"
    assert Sample(Path("a.png"), None, "scan").unit == "scan"

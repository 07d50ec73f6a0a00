"""What counts as a nodule or as lungs."""

from __future__ import annotations

import numpy as np

from bundles.lung_two_stage.generation import validity
from tests.bundles.lung_two_stage.made_work import slice_bank


def discs(*radii: float, size: int = 20, row: float = 9.5) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(float)
    return np.stack([255 * (np.hypot(y - row, x - 9.5) < radius) for radius in radii]).astype(np.uint8)


def test_only_the_largest_piece_stays_and_faint_pixels_go() -> None:
    alpha = discs(4)[0]
    noisy = alpha.copy()
    noisy[0, :2], noisy[19] = 255, 12
    assert np.array_equal(validity.one_nodule(noisy), alpha)
    assert not validity.one_nodule(np.full((8, 8), 12, np.uint8)).any()


def test_nodules_are_as_large_as_real_ones_and_whole() -> None:
    real = discs(3, 6)
    found = validity.are_whole(discs(2, 3, 5, 6, 7), real)
    assert found.tolist() == [False, True, True, True, False]
    assert not validity.are_whole(discs(4, row=1), real).any()
    assert not validity.are_whole(discs(0.1), discs(0.1, 6)).any()


def test_diameters_are_those_of_discs() -> None:
    assert np.allclose(validity.diameters_mm(discs(3, 8), 2.0), [12, 32], rtol=0.1)


def test_lungs_are_found_or_not() -> None:
    bank = slice_bank(["a", "b"], 1, [0])
    nothing = np.full_like(bank.hu[:1], 40)
    lungs, found = validity.find_lungs(np.concatenate([bank.hu, nothing]), 5.0, False)
    assert found.tolist() == [True, True, False] and set(np.unique(lungs)) == {0, 1, 2}
    sizes = (lungs > 0).sum((1, 2))
    small = bank.lung.copy()
    small[:, 16:] = 0
    assert sizes[0] > 0 and validity.have_lungs_as(lungs, lungs[:2]).tolist() == [True, True, False]
    assert not validity.have_lungs_as(small, bank.lung).any()


def test_lungs_in_parts_of_the_chest() -> None:
    """No body around them: found by their HU alone, and what has none is not valid."""
    parts = np.full((2, 32, 32), 40, np.int16)
    parts[0, :, :20] = -850
    lungs, found = validity.find_lungs(parts, 1.0, False, parts=True)
    assert found.tolist() == [True, False] and lungs[0, :, :20].all() and not lungs[0, :, 22:].any()
    assert not validity.find_lungs(parts, 1.0, False)[1].any()

"""Circles around nodules."""

from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
from bundles.lung_two_stage.composition.outlines import outlines_of
from common.errors import UserError
from tests.bundles.lung_two_stage.composition.made import disc


def bank(alpha: np.ndarray, spacing_mm: float = 0.5) -> NoduleBank:
    records = [NoduleRecord(f"n{n}", "", "", 1.0, spacing_mm) for n in range(len(alpha))]
    return NoduleBank(np.zeros(alpha.shape, np.int16), alpha, records)


def test_centre_and_farthest_pixel() -> None:
    alpha = np.zeros((2, 6, 8), np.uint8)
    alpha[0, 2, 1:6] = 128  # a row of five pixels, and
    alpha[0, 4, 4] = 127  # less than half a nodule
    found = outlines_of(bank(alpha))
    np.testing.assert_array_equal(found.centres[0], [2, 3])
    np.testing.assert_allclose(found.radii_mm, [2.5 * 0.5, 0], rtol=0.01)
    assert found.usable.tolist() == [0]


def test_a_nodule_reaches_as_far_as_it_is_seen_and_not_as_its_mask() -> None:
    """A disc of 5 pixels in a generous mask of 7: the distance to the lung's edge is the picture's."""
    mask, nodule = disc(33, (16, 15), 7), disc(33, (17, 15), 5)
    hu = np.where(nodule, 40, -850).astype(np.int16)[None]
    made = NoduleBank(hu, mask[None].astype(np.uint8) * 255, [NoduleRecord("n", "", "", 10.5, 0.7)])
    found = outlines_of(made)
    np.testing.assert_allclose(found.centres[0], [17, 15], atol=0.05)
    assert found.radii_mm[0] == pytest.approx(5.5 * 0.7, rel=0.05)


def test_banks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="none of the bank has a mask"):
        outlines_of(bank(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(UserError, match=r"nodule n0: spacing of 0\.0 mm"):
        outlines_of(bank(np.full((1, 4, 4), 255, np.uint8), spacing_mm=0.0))
    broken = bank(np.full((1, 4, 4), 255, np.uint8))
    with pytest.raises(UserError, match="differ in shape"):
        outlines_of(NoduleBank(broken.hu[:, 1:], broken.alpha, broken.records))

from __future__ import annotations

import pytest

from bundles.lung_two_stage.rivals.merging import merge_candidates
from common.metrics.froc import Candidate


def seen(z: float, score: float, radius: float, x: float = 0.0) -> Candidate:
    return Candidate("a", (z, 0.0, x), score, radius)


def test_slices_of_one_nodule_become_one() -> None:
    """The surest (radius 5) takes in what is within 5 mm; the mean is weighted by score."""
    discs = [seen(-4.0, 0.2, 3.0), seen(0.0, 0.6, 5.0), seen(4.0, 0.4, 3.0), seen(11.0, 0.3, 3.0)]
    first, second = merge_candidates(discs)
    assert first.score == 0.6 and first.radius_mm == 5.0
    assert first.position_mm == pytest.approx(((-4 * 0.2 + 4 * 0.4) / 1.2, 0.0, 0.0))
    assert second == discs[3]


def test_the_larger_radius_decides() -> None:
    assert len(merge_candidates([seen(0.0, 0.9, 1.0), seen(4.0, 0.5, 6.0)])) == 1
    assert len(merge_candidates([seen(0.0, 0.9, 1.0), seen(4.0, 0.5, 3.0)])) == 2


def test_nothing_and_scores_of_zero() -> None:
    assert merge_candidates([]) == []
    (merged,) = merge_candidates([seen(0.0, 0.0, 4.0), seen(2.0, 0.0, 4.0)])
    assert merged.position_mm == pytest.approx((1.0, 0.0, 0.0))

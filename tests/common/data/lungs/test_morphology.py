from __future__ import annotations

import numpy as np

from common.data.lungs.morphology import close_slice, components, fill_slice, touching_rim


def test_closing_fills_what_is_narrower_than_the_disc() -> None:
    """A slot of 4 mm is closed by a radius of 3 mm, one of 8 mm is not; pixels are 1 by 2 mm."""
    mask = np.zeros((40, 20), bool)
    mask[5:35, 3:17] = True
    mask[10:14, 3:12] = mask[20:28, 3:12] = False
    closed = close_slice(mask, 3.0, (1.0, 2.0))
    assert closed[10:14, 4:12].all() and not closed[23:25, 4:8].any()
    assert not (closed & ~mask)[:, 17:].any() and not closed[:5].any()


def test_closing_does_not_leave_the_slice() -> None:
    mask = np.ones((6, 6), bool)
    assert close_slice(mask, 4.0, (1.0, 1.0)).all()


def test_regions_at_the_rim_are_found_in_each_slice_alone() -> None:
    mask = np.zeros((2, 6, 6), bool)
    mask[0, :2, :2] = mask[0, 3, 3] = mask[1, 1, 1] = True
    rim = touching_rim(mask)
    assert rim[0, :2, :2].all() and rim.sum() == 4


def test_components_are_counted_without_the_background() -> None:
    labels, sizes = components(np.array([[[True, True, False, True]]]))
    assert sizes.tolist() == [0, 2, 1] and labels.max() == 2


def test_small_holes_are_filled_and_large_ones_stay() -> None:
    """Pixels of 5 by 10 mm: a hole of 2 cm2 and one of 4.5."""
    mask = np.ones((20, 20), bool)
    mask[2:4, 2:4] = mask[10:13, 10:13] = False
    filled = fill_slice(mask, 3.0, (5.0, 10.0))
    assert filled[2:4, 2:4].all() and not filled[10:13, 10:13].any() and filled.sum() == 391

"""Places in lungs: likely ones, inside, apart; impossible ones are given up."""

from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.composition.groups import Groups, draw_groups
from bundles.lung_two_stage.composition.placing import NOWHERE, LungField, place_groups

RADII = np.array([1.0, 2.0, 3.0], np.float32)


def even(lung: np.ndarray) -> np.ndarray:
    return (lung / lung.sum()).astype(np.float32)


def field(lung: np.ndarray, spacing_mm: float = 1.0) -> LungField:
    return LungField.of(lung, even(lung), spacing_mm)


def group(*members: int) -> Groups:
    array = np.array([members], np.int32)
    return Groups(array, np.zeros_like(array, np.uint8))


def test_depths_are_mm_to_the_edge_and_the_border_is_one() -> None:
    lung = np.zeros((5, 9), np.uint8)
    lung[:, :7] = 1  # open to three sides
    there = field(lung, 0.5)
    depths = dict(zip(there.pixels.tolist(), there.depths.tolist(), strict=True))
    assert depths[2 * 9 + 3] == pytest.approx(2.5 * 0.5)  # middle row: 2 rows to the border, and half a pixel
    assert depths[0] == pytest.approx(0.25) and depths[2 * 9 + 6] == pytest.approx(0.25)


def test_places_follow_the_presence() -> None:
    lung = np.ones((4, 4), np.uint8)
    presence = np.zeros((4, 4), np.float32)
    presence[1, 2], presence[3, 0] = 0.75, 0.25
    there = LungField.of(lung, presence, 1.0)
    drawn = there.pixels[there.draw(np.random.default_rng(0).random(4000))]
    assert set(drawn.tolist()) == {6, 12} and np.mean(drawn == 6) == pytest.approx(0.75, abs=0.03)


def test_nodules_lie_inside_and_apart_and_the_margin_is_the_least() -> None:
    lung = np.zeros((40, 40), np.uint8)
    lung[3:37, 5:30] = 1
    there, groups = field(lung), draw_groups(0, 200, np.arange(3), 3)
    placed = place_groups(groups, RADII, there, seed=0, normal=4, attempts=100)
    depth = dict(zip(there.pixels.tolist(), there.depths.tolist(), strict=True))
    assert np.isfinite(placed.margins).all() and not placed.too_large.any()
    for members, pixels, margin in zip(groups.members, placed.pixels, placed.margins, strict=True):
        chosen = [(int(p), float(RADII[m])) for m, p in zip(members, pixels, strict=True) if m >= 0]
        assert margin == pytest.approx(min(depth[p] - r for p, r in chosen)) and margin >= 0
        for n, (p, r) in enumerate(chosen):
            for q, s in chosen[:n]:
                assert np.hypot(p // 40 - q // 40, p % 40 - q % 40) >= r + s
        assert (pixels[members < 0] == NOWHERE).all()


def test_a_group_is_placed_alike_whatever_follows_it() -> None:
    there, groups = field(np.ones((30, 30), np.uint8)), draw_groups(0, 50, np.arange(3), 3)
    every = place_groups(groups, RADII, there, 0, 2, 50)
    few = place_groups(groups.first(8), RADII, there, 0, 2, 50)
    np.testing.assert_array_equal(every.pixels[:8], few.pixels)
    other = place_groups(groups.first(8), RADII, there, 0, 3, 50)
    assert (other.pixels != few.pixels).any()


def test_a_nodule_larger_than_the_lung_and_two_that_do_not_fit_are_given_up() -> None:
    lung = np.zeros((20, 20), np.uint8)
    lung[8:12, 8:12] = 1  # depths of 0.5 and 1.5 pixels
    there = field(lung)
    large = place_groups(group(1), RADII, there, 0, 0, attempts=10**9)  # would never end if it tried
    assert large.too_large.tolist() == [True] and large.margins.tolist() == [-np.inf]
    both = place_groups(group(0, 0), RADII, there, 0, 0, attempts=30)
    assert both.too_large.tolist() == [False] and both.margins.tolist() == [-np.inf]
    one = place_groups(group(0), RADII, there, 0, 0, attempts=30)
    assert one.margins.tolist() == [0.5]

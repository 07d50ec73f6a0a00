from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.extraction.presence_map import (
    LEFT,
    RIGHT,
    LungBox,
    LungPoint,
    PresenceMap,
    find_lung_box,
    locate_in_lung,
)
from common.errors import UserError

GRID = 16


def two_lungs(height: int = 40, width: int = 60) -> np.ndarray:
    """A small right lung and a tall left one; a corner of the right box is no lung."""
    lung = np.zeros((height, width), np.uint8)
    lung[10:26, 4:20], lung[4:36, 34:50] = RIGHT, LEFT
    lung[10:14, 4:8] = 0
    return lung


def test_one_nodule_and_almost_no_prior_is_one_place() -> None:
    """All probability in the cell of the nodule: front edge, towards the patient's left, right lung."""
    presence = PresenceMap.from_points([LungPoint(RIGHT, 0.01, 0.97)], GRID, bandwidth=0, prior=1e-9)
    assert presence.density.shape == (2, GRID, GRID) and presence.density.sum() == pytest.approx(1)
    assert presence.density[0, 0, GRID - 1] == pytest.approx(1)
    placed = presence.on_slice(two_lungs())
    assert np.unravel_index(placed.argmax(), placed.shape) == (10, 19)
    assert placed[10, 19] == pytest.approx(1, abs=1e-6)


def test_sides_have_the_share_of_their_nodules_whatever_their_size() -> None:
    """Three nodules of four in the small lung: 3/4 of the probability is there, spread_evenly as counted."""
    points = [LungPoint(RIGHT, 0.6, 0.6)] * 3 + [LungPoint(LEFT, 0.6, 0.6)]
    placed = PresenceMap.from_points(points, GRID, bandwidth=0.05, prior=1e-9).on_slice(two_lungs())
    lung = two_lungs()
    assert placed[lung == RIGHT].sum() == pytest.approx(0.75, abs=1e-3)
    assert placed[lung == LEFT].sum() == pytest.approx(0.25, abs=1e-3)


def test_smoothing_is_a_gaussian_of_the_bandwidth_and_loses_nothing_at_the_edge() -> None:
    centre = PresenceMap.from_points([LungPoint(LEFT, 0.5, 0.5)], 200, bandwidth=0.05, prior=1e-9).density[1]
    centres = (np.arange(200) + 0.5) / 200
    mean = (centre.sum(1) * centres).sum()
    spread_evenly = np.sqrt((centre.sum(1) * (centres - mean) ** 2).sum())
    assert (mean, spread_evenly) == (pytest.approx(0.5025, abs=1e-4), pytest.approx(0.05, rel=0.01))
    edge = PresenceMap.from_points([LungPoint(LEFT, 0.0, 0.5)], 200, bandwidth=0.05, prior=1e-9).density[1]
    assert edge.sum() == pytest.approx(1, abs=1e-6) and edge[0, 100] == pytest.approx(edge.max())


def test_the_prior_is_that_many_nodules_spread_evenly() -> None:
    presence = PresenceMap.from_points([LungPoint(LEFT, 0.5, 0.5)] * 2, GRID, bandwidth=0, prior=2.0)
    assert presence.density[0].sum() == pytest.approx(0.25)  # half of the prior's half
    assert np.ptp(presence.density[0]) == pytest.approx(0)


def test_the_map_sums_to_one_inside_the_lung_and_is_zero_outside() -> None:
    points = [LungPoint(RIGHT, 0.1, 0.1), LungPoint(LEFT, 0.9, 0.2)]  # the first lies in the cut corner
    for lung in (two_lungs(), two_lungs()[:, :30], two_lungs()[:, 30:]):
        placed = PresenceMap.from_points(points).on_slice(lung)
        assert placed.dtype == np.float32 and placed.sum() == pytest.approx(1, abs=1e-5)
        assert (placed[lung == 0] == 0).all() and (placed[lung > 0] > 0).all()


def test_without_nodules_each_lung_is_even() -> None:
    lung = two_lungs()
    placed = PresenceMap.from_points([]).on_slice(lung)
    for side in (RIGHT, LEFT):
        assert np.ptp(placed[lung == side]) == pytest.approx(0, abs=1e-9)


def test_a_nodule_comes_back_to_its_place_in_another_patient() -> None:
    """Learnt in one slice, the most probable place of a slice twice as wide is the same place in its lung."""
    point = locate_in_lung(two_lungs(), 30, 45)
    assert point is not None
    wide = np.repeat(two_lungs(), 2, axis=1)
    placed = PresenceMap.from_points([point] * 20, bandwidth=0.03).on_slice(wide)
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert abs(row - 30) <= 1 and abs(column - 90.5) <= 1.5


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    presence = PresenceMap.from_points([LungPoint(RIGHT, 0.3, 0.6)], bandwidth=0.1)
    again = PresenceMap.load(presence.save(tmp_path / "presence.npz"))
    assert np.array_equal(again.density, presence.density)
    assert again.metadata == {"nodules": 1, "bandwidth": 0.1, "prior": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["presence.npz"]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shows no lung"):
        PresenceMap.from_points([]).on_slice(np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="prior"):
        PresenceMap.from_points([], prior=0)
    with pytest.raises(UserError, match="run the extraction first"):
        PresenceMap.load(tmp_path / "presence.npz")
    (tmp_path / "presence.npz").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="run the extraction again"):
        PresenceMap.load(tmp_path / "presence.npz")


def test_more_nodules_are_smoothed_less() -> None:
    """The rule's 12 ** -0.5 * N ** (-1 / 6)."""
    for count, bandwidth in ((1, 0.28868), (64, 0.14434)):
        presence = PresenceMap.from_points([LungPoint(RIGHT, 0.3, 0.6)] * count)
        assert presence.metadata["bandwidth"] == pytest.approx(bandwidth, abs=1e-4)


def two_lungs_coordinates() -> np.ndarray:
    """Right lung rows 2..5, columns 1..4; left lung rows 3..10, columns 8..9."""
    lung = np.zeros((12, 12), np.uint8)
    lung[2:6, 1:5], lung[3:11, 8:10] = RIGHT, LEFT
    return lung


def test_boxes_are_tight_and_apart() -> None:
    assert find_lung_box(two_lungs_coordinates(), RIGHT) == LungBox(2, 6, 1, 5)
    assert find_lung_box(two_lungs_coordinates(), LEFT) == LungBox(3, 11, 8, 10)
    assert find_lung_box(np.zeros((4, 4), np.uint8), LEFT) is None


def test_points_are_relative_to_the_box_of_their_own_lung() -> None:
    assert locate_in_lung(two_lungs_coordinates(), 2, 1) == LungPoint(RIGHT, 0.125, 0.125)
    assert locate_in_lung(two_lungs_coordinates(), 3.5, 2.5) == LungPoint(RIGHT, 0.5, 0.5)
    assert locate_in_lung(two_lungs_coordinates(), 10, 8) == LungPoint(LEFT, 0.9375, 0.25)


def test_a_centre_beside_the_lung_belongs_to_the_nearest_one() -> None:
    assert locate_in_lung(two_lungs_coordinates(), 5, 11) == LungPoint(LEFT, 0.3125, 1.0)
    assert locate_in_lung(two_lungs_coordinates(), 0, 2) == LungPoint(RIGHT, 0.0, pytest.approx(0.375))
    assert locate_in_lung(np.zeros((4, 4), np.uint8), 1, 1) is None

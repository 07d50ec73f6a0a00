from __future__ import annotations

import numpy as np
import pytest

from common.data.phantoms.anatomy import Grid
from common.data.phantoms.chest import END_RADIUS, MAX_RADIUS, Branches, grow_tree, paint_branches


def test_murray_radius_of_a_fork() -> None:
    stem, ends = np.zeros(3), np.array([[10.0, 0, 0], [20.0, 8, 0], [20.0, -8, 0]])
    tree = grow_tree(stem, ends)
    assert tree.starts[0].tolist() == [0, 0, 0] and tree.ends[0].tolist() == [10, 0, 0]
    assert tree.starts[1:].tolist() == [[10, 0, 0], [10, 0, 0]]
    assert tree.radii == pytest.approx([END_RADIUS * 2 ** (1 / 3), END_RADIUS, END_RADIUS])


def test_tree_reaches_every_target_and_tapers() -> None:
    targets = np.random.default_rng(0).uniform(-40, 40, (150, 3))
    tree = grow_tree(np.zeros(3), targets)
    assert sorted(map(tuple, tree.ends)) == sorted(map(tuple, targets))
    by_end = {tuple(end): radius for end, radius in zip(tree.ends, tree.radii, strict=True)}
    for start, radius in zip(tree.starts, tree.radii, strict=True):
        assert by_end.get(tuple(start), MAX_RADIUS) >= radius


def test_painted_branch_lies_where_it_was_put() -> None:
    grid = Grid((72, 72, 24))  # 5 x 5 x 10 mm
    branch = Branches(np.array([[-52.5, 2.5, 105.0]]), np.array([[47.5, 2.5, 105.0]]), np.array([4.0]))
    share = paint_branches(grid, branch, slab=4.0)
    assert np.flatnonzero(share.any(axis=(0, 1))).tolist() == [10]
    assert share[30, 36, 10] == 1 and share[30, 38, 10] == 0
    assert share[10, 36, 10] == 0 and share[60, 36, 10] == 0

"""Groups of different nodules."""

from __future__ import annotations

import numpy as np

from bundles.lung_two_stage.composition.groups import NOBODY, TURNS, draw_groups

USABLE = np.array([1, 4, 5, 9])


def test_members_differ_and_all_sizes_nodules_and_turns_occur() -> None:
    groups = draw_groups(0, 600, USABLE, 3)
    assert groups.members.shape == groups.turns.shape == (600, 3) and len(groups) == 600
    sizes = (groups.members != NOBODY).sum(axis=1)
    assert np.bincount(sizes, minlength=4)[1:].min() > 150  # a third each
    for members, size in zip(groups.members, sizes, strict=True):
        assert set(members[:size]) <= set(USABLE) and len(set(members[:size])) == size
        assert (members[size:] == NOBODY).all()
    first = np.bincount(groups.members[:, 0], minlength=10)
    assert first[USABLE].min() > 100 and first.sum() == first[USABLE].sum()
    assert np.bincount(groups.turns[:, 0]).min() > 40 and groups.turns.max() == len(TURNS) - 1


def test_the_first_groups_do_not_depend_on_the_others() -> None:
    few, many = draw_groups(3, 10, USABLE, 3), draw_groups(3, 600, USABLE, 3)
    np.testing.assert_array_equal(few.members, many.first(10).members)
    np.testing.assert_array_equal(few.turns, many.first(10).turns)
    assert (draw_groups(4, 10, USABLE, 3).members != few.members).any()


def test_fewer_nodules_than_a_group_may_have() -> None:
    assert draw_groups(0, 5, USABLE[:2], 3).members.shape == (5, 2)

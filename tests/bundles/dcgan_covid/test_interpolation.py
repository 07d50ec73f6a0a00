from __future__ import annotations

import math

import pytest
import torch

from bundles.dcgan_covid.interpolation import interpolate, linear, spherical
from common.errors import UserError


def test_the_line_goes_through_the_middle_and_both_ends() -> None:
    start, end = torch.tensor([2.0, 0.0, -4.0]), torch.tensor([0.0, 6.0, 0.0])
    found = interpolate(start, end, 3, "linear")
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0, -4.0], [1.0, 3.0, -2.0], [0.0, 6.0, 0.0]]))


def test_the_arc_between_right_angles_keeps_the_norm_and_the_line_does_not() -> None:
    start, end = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0])
    arc, line = (interpolate(start, end, 5, path) for path in ("spherical", "linear"))
    torch.testing.assert_close(arc.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(line[2].norm(), torch.tensor(3 / math.sqrt(2)))
    third = interpolate(start, end, 4, "spherical")[1]  # 30 degrees from the start
    torch.testing.assert_close(third, torch.tensor([3 * math.sqrt(0.75), 0.0, 1.5]))


def test_an_arc_has_equal_steps_whatever_the_angle() -> None:
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(2.5), math.sin(2.5)])
    steps = (interpolate(start, end, 6, "spherical").diff(dim=0)).norm(dim=1)
    torch.testing.assert_close(steps, torch.full((5,), 2 * math.sin(0.25)))


def test_norms_that_differ_grow_from_one_to_the_other() -> None:
    norms = interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 4.0]), 9, "spherical").norm(dim=1)
    assert (norms.diff() > 0).all() and norms[0] == 1 and abs(norms[-1] - 4) < 1e-6


def test_the_arc_to_the_same_direction_is_the_line() -> None:
    start, shares = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(spherical(start, 3 * start, shares), linear(start, 3 * start, shares))
    torch.testing.assert_close(spherical(start, start, shares), start.expand(3, 2))


def test_what_has_no_way_is_refused() -> None:
    start = torch.tensor([1.0, 2.0])
    with pytest.raises(UserError, match="opposite"):
        interpolate(start, -2 * start, 4, "spherical")
    with pytest.raises(UserError, match="opposite"):
        interpolate(start, torch.zeros(2), 4, "spherical")
    with pytest.raises(UserError, match="at least 2"):
        interpolate(start, 2 * start, 1)
    with pytest.raises(UserError, match="'cubic' is unknown; choose linear or spherical"):
        interpolate(start, 2 * start, 3, "cubic")

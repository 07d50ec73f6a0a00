from __future__ import annotations

import pytest
import torch

from bundles.lung_two_stage.rivals.vgg import VggClassifier
from common.errors import UserError


@pytest.mark.parametrize("depth", [1, 2, 5, 8])
@pytest.mark.parametrize("dims", [2, 3])
def test_any_depth(dims: int, depth: int) -> None:
    network = VggClassifier(dims, widths=(4, 8, 8), hidden=8)
    assert network(torch.randn(3, 1, depth, 16, 16)).shape == (3, 1)


def test_patches_see_the_middle_slice_alone() -> None:
    network, cubes = VggClassifier(2, widths=(4, 8), hidden=8).eval(), torch.randn(2, 1, 5, 16, 16)
    changed = cubes.clone()
    changed[:, :, [0, 1, 3, 4]] = 0.0
    assert torch.equal(network(cubes), network(changed))
    changed[:, :, 2] = 0.0
    assert not torch.equal(network(cubes), network(changed))


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="spatial_dims 4"):
        VggClassifier(4)

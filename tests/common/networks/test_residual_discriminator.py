from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.augmented import AugmentedDiscriminator
from common.networks.initialisation import initialise
from common.networks.residual_discriminator import Halving, ResidualDiscriminator


def test_the_documented_size() -> None:
    count = sum(parameter.numel() for parameter in ResidualDiscriminator().parameters())
    expected = 16 * 32 + 32 + 16 * 256 + 1  # the first and the last convolution
    for source, target in ((32, 64), (64, 128), (128, 256), (256, 256)):
        expected += 16 * source * target + 9 * target * target + source * target + 3 * target
    assert count == expected
    assert f"{count:,}".replace(",", " ") in str(ResidualDiscriminator.__doc__)


@pytest.mark.parametrize(("side", "levels"), [(16, 2), (32, 3), (64, 4), (128, 5)])
def test_it_halves_down_to_one_logit(side: int, levels: int) -> None:
    critique = ResidualDiscriminator(side, width=2)(torch.rand(2, 1, side, side))
    assert [tuple(logits.shape) for logits in critique.logits] == [(2, 1, 1, 1)]
    sides = [feature.shape[2] for feature in critique.features[0]]
    assert sides == [side // 2 ** (level + 1) for level in range(levels)] and sides[-1] == 4


def test_samples_are_judged_apart() -> None:
    torch.manual_seed(0)
    network, image = ResidualDiscriminator(32, width=4).train(), torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(network(image[:2]).logits[0], network(image).logits[0][:2])


def test_a_halving_is_the_scaled_sum_of_both_ways() -> None:
    torch.manual_seed(0)
    halving, x = Halving(2, 3), torch.rand(1, 2, 8, 8)
    result = halving(x)
    assert result.shape == (1, 3, 4, 4)
    torch.testing.assert_close(result * 2**0.5, halving.winding(x) + halving.straight(x))
    nn.init.zeros_(halving.straight[1].weight)
    torch.testing.assert_close(halving(x) * 2**0.5, halving.winding(x))


def test_the_class_is_judged() -> None:
    torch.manual_seed(0)
    network, image = ResidualDiscriminator(32, width=4, classes=2), torch.rand(2, 1, 32, 32)
    logits = [network(image, torch.full((2,), number)).logits[0] for number in (0, 1)]
    fit = network(image).features[0][-1].mean((2, 3)) @ (
        network.projection.table[1] - network.projection.table[0]
    )
    torch.testing.assert_close((logits[1] - logits[0]).flatten(), fit)


def test_it_keeps_its_first_weights_within_another_network() -> None:
    network = ResidualDiscriminator(32, width=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outer = nn.Sequential(AugmentedDiscriminator(network), nn.Conv2d(1, 1, 4))
    weight = outer[1].weight.clone()
    initialise(outer)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not torch.equal(outer[1].weight, weight)


def test_weights_of_a_smaller_image_fit_a_larger_one() -> None:
    small, large = ResidualDiscriminator(32, width=4), ResidualDiscriminator(64, width=4)
    theirs = large.state_dict()
    fitting = {n for n, value in small.state_dict().items() if n in theirs and theirs[n].shape == value.shape}
    assert {name.split(".")[0] for name in set(small.state_dict()) - fitting} == {"first"}


@pytest.mark.parametrize("side", [8, 40, 100])
def test_other_sizes_are_refused(side: int) -> None:
    with pytest.raises(UserError, match=f"image_size {side} does not fit the networks"):
        ResidualDiscriminator(side)

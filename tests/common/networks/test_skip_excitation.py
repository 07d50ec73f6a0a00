from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.discriminators import AugmentedDiscriminator
from common.networks.skip_excitation import (
    Halving,
    ResidualBlock,
    ResidualDiscriminator,
    SkipExcitation,
    SkipExcitationGenerator,
    channels_of,
)
from common.networks.state import init_weights

NOISE = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def trained(network: nn.Module) -> nn.Module:
    """Every weight moved off its beginning."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def expected_size(side: int, latent: int = 100, width: int = 32) -> int:
    sides = [4 * 2**k for k in range(20) if 4 * 2**k <= side]
    channels = [min(8 * width, 64 * width // s) for s in sides]
    count = (latent + 1) * 16 * channels[0]
    for level, c in enumerate(channels):
        count += 2 * (9 * c * c + c)
        if level and channels[level - 1] != c:
            count += channels[level - 1] * c + c
        if level >= 4:
            count += 16 * channels[level - 4] * c + c + c * c + c
    return count + 9 * channels[-1] + 1


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_the_stated_size(side: int) -> None:
    assert size(SkipExcitationGenerator(side)) == expected_size(side)


def test_the_documented_size() -> None:
    count = size(SkipExcitationGenerator())
    assert f"{count:,}".replace(",", " ") in str(SkipExcitationGenerator.__doc__)
    assert 2 * count <= 20e6  # bytes in float16


def test_channels_halve_above_64_pixels_and_are_bounded_below() -> None:
    assert [channels_of(side, 32) for side in (4, 8, 16, 32, 64, 128)] == [256, 256, 128, 64, 32, 16]


@pytest.mark.parametrize(("side", "classes", "grain"), [(32, 0, True), (64, 3, True), (128, 0, False)])
def test_shape_range_and_script(side: int, classes: int, grain: bool) -> None:
    torch.manual_seed(0)
    network = trained(SkipExcitationGenerator(side, width=4, classes=classes, grain=grain)).eval()
    given = (NOISE, torch.tensor([0, 1, 2])) if classes else (NOISE,)
    with torch.no_grad():
        image = network(*given)
        torch.testing.assert_close(torch.jit.script(network)(*given), image)
    assert image.shape == (3, 1, side, side) and image.dtype == torch.float32
    assert -1 < float(image.min()) < float(image.max()) < 1


def test_grain_is_drawn_in_training_and_follows_from_the_latent_later() -> None:
    network = trained(SkipExcitationGenerator(64, width=4, grain=True))
    with torch.no_grad():
        assert not torch.equal(network(NOISE), network(NOISE))
        images = network.eval()(NOISE)
        torch.testing.assert_close(network(NOISE[1:2]), images[1:2])
        for layer in network.grain.values():
            layer.strength.zero_()
        difference = network(NOISE) - images
    assert difference.abs().mean() > 1e-3
    assert abs(np.corrcoef(difference[0].flatten(), difference[1].flatten())[0, 1]) < 0.2


@pytest.mark.parametrize("training", [True, False])
def test_a_latent_gives_one_image_whatever_lies_beside_it(training: bool) -> None:
    network = trained(SkipExcitationGenerator(64, width=4)).train(training)
    with torch.no_grad():
        image = network(NOISE)
        torch.testing.assert_close(network(NOISE[:1]), image[:1])
        torch.testing.assert_close(network(NOISE), image, rtol=0, atol=0)
    assert not torch.allclose(image[0], image[1], atol=1e-3)


def test_classes_may_be_walked_with_the_noise_fixed() -> None:
    network = trained(SkipExcitationGenerator(32, width=4, classes=3)).eval()
    noise = NOISE[:1].expand(3, -1)
    with torch.no_grad():
        walk = network(noise, torch.tensor([0.0, 0.5, 1.0]))
        ends = network(noise[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(walk[[0, 2]], ends)
    assert not torch.allclose(walk[1], walk[0], atol=1e-4)


def test_it_begins_as_enlargement() -> None:
    torch.manual_seed(0)
    network = SkipExcitationGenerator(64, width=4)
    x = network.first(NOISE).reshape(3, -1, 4, 4)
    for doubling in network.doublings.values():
        x = nn.functional.interpolate(doubling.change(x), scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(network(NOISE), torch.tanh(network.last["64"](x)))
    assert all(init_weights(network).state_dict()[name] is not None for name in network.state_dict())
    torch.testing.assert_close(network(NOISE), torch.tanh(network.last["64"](x)))  # init_weights leaves it


def test_a_block_is_x_plus_two_convolutions() -> None:
    block = trained(ResidualBlock(2))
    x = torch.tensor([[[[2.0]], [[-1.0]]]])
    first = block.first.weight[:, :, 1, 1] @ torch.tensor([2.0, -0.2]) + block.first.bias
    inner = torch.where(first > 0, first, 0.2 * first)
    expected = torch.tensor([2.0, -1.0]) + block.second.weight[:, :, 1, 1] @ inner + block.second.bias
    torch.testing.assert_close(block(x).flatten(), expected)


def test_a_gate_weighs_channels_of_the_large_map() -> None:
    gate = SkipExcitation(3, 8, 2)
    large, small = torch.rand(1, 2, 16, 16), torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(gate(large, small), large)
    gate.excite.bias.data = torch.tensor([0.0, 1.0])
    ratio = (gate(large, small) / large).mean((0, 2, 3))
    torch.testing.assert_close(ratio, torch.stack([torch.tensor(1.0), 2 * torch.tensor(1.0).sigmoid()]))
    trained(gate)
    assert not torch.allclose(gate(large, small), gate(large, small + 1))


def test_weights_of_a_smaller_image_fit_a_larger_one() -> None:
    small, large = SkipExcitationGenerator(32, width=4), SkipExcitationGenerator(64, width=4)
    theirs = large.state_dict()
    fitting = {n for n, value in small.state_dict().items() if n in theirs and theirs[n].shape == value.shape}
    assert set(small.state_dict()) - fitting == {"last.32.weight", "last.32.bias"}


def test_its_sizes_are_read_off_its_weights() -> None:
    network = SkipExcitationGenerator(32, latent=7, width=4, classes=2)
    assert network.sizes(network.state_dict()) == {
        "latent size": 7,
        "image size": 32,
        "number of classes": 2,
    }


@pytest.mark.parametrize("side", [8, 40, 100])
def test_other_sizes_are_refused(side: int) -> None:
    with pytest.raises(UserError, match=f"image_size {side} does not fit the networks"):
        SkipExcitationGenerator(side)


def test_the_documented_size_residual_discriminator() -> None:
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


def test_a_place_is_judged_by_46_pixels_around_it() -> None:
    torch.manual_seed(0)
    network, image = ResidualDiscriminator(128, width=2, patches=16), torch.rand(1, 1, 128, 128)
    whole, places = network(image.requires_grad_()).logits
    assert whole.shape == (1, 1, 1, 1) and places.shape == (1, 1, 16, 16)
    (gradient,) = torch.autograd.grad(places[0, 0, 8, 4], image)
    rows, columns = (gradient[0, 0].abs().amax(dim).nonzero().flatten() for dim in (1, 0))
    assert (rows[0], rows[-1]) == (45, 90) and (columns[0], columns[-1]) == (13, 58)


@pytest.mark.parametrize("patches", [3, 32])
def test_places_are_those_of_a_map(patches: int) -> None:
    with pytest.raises(UserError, match=rf"patches {patches}: no map of this side; choose of \[16, 8\]"):
        ResidualDiscriminator(32, width=2, patches=patches)


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
    init_weights(outer)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not torch.equal(outer[1].weight, weight)


def test_weights_of_a_smaller_image_fit_a_larger_one_residual_discriminator() -> None:
    small, large = ResidualDiscriminator(32, width=4), ResidualDiscriminator(64, width=4)
    theirs = large.state_dict()
    fitting = {n for n, value in small.state_dict().items() if n in theirs and theirs[n].shape == value.shape}
    assert {name.split(".")[0] for name in set(small.state_dict()) - fitting} == {"first"}


@pytest.mark.parametrize("side", [8, 40, 100])
def test_other_sizes_are_refused_residual_discriminator(side: int) -> None:
    with pytest.raises(UserError, match=f"image_size {side} does not fit the networks"):
        ResidualDiscriminator(side)

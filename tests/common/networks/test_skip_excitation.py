from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.initialisation import initialise
from common.networks.skip_excitation import (
    ResidualBlock,
    SkipExcitation,
    SkipExcitationGenerator,
    channels_of,
)

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


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("side", [32, 64, 128])
def test_shape_range_and_script(side: int, classes: int) -> None:
    torch.manual_seed(0)
    network = trained(SkipExcitationGenerator(side, width=4, classes=classes)).eval()
    given = (NOISE, torch.tensor([0, 1, 2])) if classes else (NOISE,)
    with torch.no_grad():
        image = network(*given)
        torch.testing.assert_close(torch.jit.script(network)(*given), image)
    assert image.shape == (3, 1, side, side) and image.dtype == torch.float32
    assert -1 < float(image.min()) < float(image.max()) < 1


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
    assert all(initialise(network).state_dict()[name] is not None for name in network.state_dict())
    torch.testing.assert_close(network(NOISE), torch.tanh(network.last["64"](x)))  # initialise leaves it


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

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.networks.texture import DrawnNoise, FixedTexture, drawn_noise, noise_channels, textured


def test_texture_is_fixed_and_stands_beside_the_input() -> None:
    torch.manual_seed(1)
    texture = FixedTexture(2, size=8)
    torch.manual_seed(2)
    x = torch.rand(3, 1, 8, 8)
    out = texture(x)
    assert torch.equal(out[:, :1], x) and out.shape == (3, 3, 8, 8)
    assert torch.equal(out[0, 1:], out[2, 1:]) and torch.equal(out[:, 1:], FixedTexture(2, size=8)(x)[:, 1:])
    assert not torch.equal(out[0, 1], out[0, 2]) and 0.7 < float(out[:, 1:].std()) < 1.3


def test_texture_repeats_beyond_its_size_and_is_cut_below_it() -> None:
    texture = FixedTexture(1, size=4)
    wide = texture(torch.zeros(1, 1, 6, 9))[:, 1:]
    assert torch.equal(wide[..., :4, :4], texture.noise) and torch.equal(
        wide[..., 4:, :4], texture.noise[..., :2, :]
    )
    assert torch.equal(wide[..., :4, 8:], texture.noise[..., :1])
    assert torch.equal(texture(torch.zeros(1, 1, 3, 2))[:, 1:], texture.noise[..., :3, :2])


def test_it_travels_with_the_weights_but_is_not_trained() -> None:
    texture = textured(2)
    assert list(texture.state_dict()) == ["noise"]
    assert not any(parameter.requires_grad for parameter in texture.parameters())


def test_none_is_nothing() -> None:
    x = torch.rand(1, 1, 4, 4)
    assert isinstance(textured(0), nn.Identity) and textured(0)(x) is x


def masks(count: int, size: int = 40) -> torch.Tensor:
    return (torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(3)) > 0.7).float()


def test_drawn_noise_follows_from_the_condition_in_evaluation() -> None:
    layer, condition = DrawnNoise(2).eval(), masks(3)
    out = layer(condition * 2 - 1, condition)
    assert out.shape == (3, 3, 40, 40) and torch.equal(out[:, :1], condition * 2 - 1)
    found = out[:, 1:]
    assert torch.equal(found[1:2], layer(condition[1:2], condition[1:2])[:, 1:])  # whatever the batch
    between = torch.corrcoef(found.flatten(1))
    assert (between - torch.eye(3)).abs().max() < 0.06  # the fixed map of old models: 1
    assert abs(float(found.mean())) < 0.06 and abs(float(found.std()) - 1) < 0.05
    moved = condition.clone()
    moved[0, 0, 7, 11] = 1 - moved[0, 0, 7, 11]  # one pixel makes another noise
    assert torch.corrcoef(torch.stack([found[0].flatten(), layer(moved, moved)[0, 1:].flatten()]))[0, 1] < 0.1


def test_drawn_noise_is_new_in_training_and_goes_by_torchs_generator() -> None:
    layer, condition = DrawnNoise(2), masks(2)
    torch.manual_seed(5)
    first, second = layer(condition, condition), layer(condition, condition)
    torch.manual_seed(5)
    assert torch.equal(first, layer(condition, condition))
    assert abs(torch.corrcoef(torch.stack([first[:, 1:].flatten(), second[:, 1:].flatten()]))[0, 1]) < 0.05


def test_noise_that_is_given_is_taken() -> None:
    layer, condition, noise = DrawnNoise(1), masks(2), torch.randn(2, 1, 40, 40)
    for mode in (True, False):
        assert torch.equal(layer.train(mode)(condition, condition, noise)[:, 1:], noise)


@pytest.mark.parametrize(("channel", "side"), [(0, 1), (1, 2), (2, 8), (3, 32), (5, 2)])
def test_channels_have_their_scales_and_one_deviation(channel: int, side: int) -> None:
    noise = torch.randn(64, 6, 128, 96, generator=torch.Generator().manual_seed(1))
    found = DrawnNoise(6, size=8).scaled(noise)
    assert found.shape == noise.shape
    plane = found[:, channel, 32:-32, 32:-32]  # bilinear noise varies more at its border
    assert float(plane.std()) == pytest.approx(1.0, abs=0.15 if side == 32 else 0.1)
    jump = float((plane[:, 1:] - plane[:, :-1]).std())
    assert jump == pytest.approx({1: 1.41, 2: 0.71, 8: 0.21, 32: 0.054}[side], rel=0.2)


@pytest.mark.parametrize("size", [40, 9])
def test_drawn_noise_beyond_its_bank_repeats(size: int) -> None:
    layer, condition = DrawnNoise(1, size=8).eval(), masks(2, size)
    found = layer.of_condition(condition)
    assert torch.equal(found[..., 8:, :], found[..., : size - 8, :])
    assert torch.equal(
        found[0, 0, :8, :8].sort().values.flatten().sort().values, layer.bank.flatten().sort().values
    )


def test_drawn_noise_is_scripted_and_travels_with_the_weights() -> None:
    layer, condition = DrawnNoise(2, size=16).eval(), masks(2)
    assert torch.equal(torch.jit.script(layer)(condition, condition), layer(condition, condition))
    assert list(layer.state_dict()) == ["bank"] and not layer.bank.requires_grad


def test_without_channels_there_is_no_noise() -> None:
    x = torch.ones(1, 1, 2, 2)
    assert drawn_noise(0)(x, x, torch.randn(1, 4, 2, 2)) is x and not drawn_noise(0).state_dict()


def test_noise_channels_are_found_within_a_network() -> None:
    assert noise_channels(nn.Sequential(nn.Sequential(drawn_noise(3)), textured(2))) == 3
    assert noise_channels(nn.Sequential(textured(2))) == 0

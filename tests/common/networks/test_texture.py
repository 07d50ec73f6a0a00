from __future__ import annotations

import torch
from torch import nn

from common.networks.texture import FixedTexture, textured


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

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.blocks import (
    ClassEncoding,
    DrawnNoise,
    FixedTexture,
    class_embedding,
    make_drawn_noise,
    make_fixed_texture,
    monai_norm,
    noise_channels,
    norm_layer,
    upsampling_layer,
)
from common.networks.state import init_weights

NAMES = ("batch", "instance", "layer", "group", "none")


def numbers(channels: int = 32) -> torch.Tensor:
    """(3, channels, 4, 5) with another level and spread for each sample and channel."""
    torch.manual_seed(0)
    level, spread = torch.randn(3, channels, 1, 1), 1 + torch.rand(3, channels, 1, 1)
    return level + spread * torch.randn(3, channels, 4, 5)


@pytest.mark.parametrize(
    ("name", "pooled"),
    [
        ("batch", lambda x: x.transpose(0, 1).flatten(1)),
        ("instance", lambda x: x.flatten(0, 1).flatten(1)),
        ("layer", lambda x: x.flatten(1)),
        ("group", lambda x: x.unflatten(1, (2, 16)).flatten(0, 1).flatten(1)),
    ],
)
def test_what_is_normalised_together_has_mean_0_and_deviation_1(name, pooled):
    together = pooled(norm_layer(name, 32)(numbers())).detach()
    torch.testing.assert_close(together.mean(1), torch.zeros(len(together)), atol=1e-5, rtol=0)
    torch.testing.assert_close(together.std(1, correction=0), torch.ones(len(together)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_all_but_batch_draw_as_they_learn(name):
    layer, x = norm_layer(name, 8), numbers(8)[:1]
    learning = layer(x)
    assert torch.equal(layer.eval()(x), learning) is (name != "batch")


@pytest.mark.parametrize("name", NAMES[:-1])
def test_all_have_a_learned_scale_and_shift(name):
    assert {key: tuple(value.shape) for key, value in norm_layer(name, 8).named_parameters()} == {
        "weight": (8,),
        "bias": (8,),
    }


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 1), (24, 3), (64, 4), (7, 7)])
def test_groups_divide_the_channels(channels, groups):
    assert norm_layer("group", channels).num_groups == groups


def test_names_for_monais_networks():
    assert monai_norm("INSTANCE") == monai_norm("instance") == ("instance", {"affine": True})
    assert monai_norm(["instance", {"affine": False}]) == ("instance", {"affine": False})
    assert monai_norm(None) is monai_norm("none") is None
    assert isinstance(norm_layer("none", 3), nn.Identity)
    for unknown in (lambda: norm_layer("batched", 3), lambda: monai_norm("batched")):
        with pytest.raises(UserError, match="norm 'batched' is unknown; choose one of batch, instance"):
            unknown()


def test_group_needs_its_number_and_lists_may_have_one_entry():
    assert monai_norm(["instance"]) == monai_norm("instance") and monai_norm(["none"]) is None
    assert monai_norm(["group", {"num_groups": 4}]) == ("group", {"num_groups": 4})
    for norm in ("group", "Group", ["group"], ["group", {}]):
        with pytest.raises(UserError, match=r"'group' needs its number of groups here: \[group, {num_groups"):
            monai_norm(norm)
    for norm in ([], ["group", 4], [{"num_groups": 4}], ["group", {"num_groups": 4}, 1]):
        with pytest.raises(UserError, match="give a name, or a list of a name and its arguments"):
            monai_norm(norm)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "taps"), [("transposed", 16), ("resize", 9)])
def test_both_double_the_size(kind: str, taps: int, bias: bool) -> None:
    layer = upsampling_layer(kind, 3, 5, bias)
    assert layer(torch.rand(2, 3, 4, 6)).shape == (2, 5, 8, 12)
    assert sum(parameter.numel() for parameter in layer.parameters()) == taps * 15 + 5 * bias


def test_resizing_has_no_grid_where_a_transposed_convolution_has_one() -> None:
    """A flat input stays flat away from the border (Odena et al. 2016)."""

    def roughness(kind: str) -> float:
        torch.manual_seed(0)
        layer = init_weights(upsampling_layer(kind, 4, 1, bias=False), 0.5)
        return float(layer(torch.ones(1, 4, 16, 16))[..., 4:-4, 4:-4].detach().std())

    assert roughness("resize") < 1e-6 < 0.1 < roughness("transposed")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="'bilinear' is unknown; choose transposed or resize"):
        upsampling_layer("bilinear", 1, 1, True)


def test_between_two_classes_lies_their_mixture() -> None:
    network = class_embedding(4, 3)
    table = network.table.detach()
    given = network(torch.tensor([2, 0])).detach()
    torch.testing.assert_close(given, table[[2, 0]])
    between = network(torch.tensor([1.25, 2.5])).detach()
    torch.testing.assert_close(between[0], 0.75 * table[1] + 0.25 * table[2])
    torch.testing.assert_close(between[1], 0.5 * table[2] + 0.5 * table[3])
    torch.testing.assert_close(torch.jit.script(network)(torch.tensor([2, 0])).detach(), given)


def test_no_classes_are_no_values() -> None:
    assert class_embedding(0, 3)(torch.zeros(5)).shape == (5, 0)


LABEL = torch.tensor([[0.0, 1.0], [3.0, 4.0]]).view(1, 1, 2, 2)


def test_index_is_one_channel_up_to_1() -> None:
    encoding = ClassEncoding(4, "index")
    assert encoding.channels == 1
    assert encoding(LABEL).flatten().tolist() == [0, 0.25, 0.75, 1]


def test_onehot_has_a_channel_for_each_class_and_none_for_the_background() -> None:
    encoding = ClassEncoding(4, "onehot")
    out = encoding(LABEL)
    assert encoding.channels == 4 and out.dtype == LABEL.dtype
    assert out[0].flatten(1).tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_an_image_passes() -> None:
    encoding = ClassEncoding(4, "image")
    assert encoding.channels == 1 and encoding(LABEL) is LABEL


@pytest.mark.parametrize("kind", ["index", "onehot", "image"])
def test_it_can_be_scripted(kind: str) -> None:
    encoding = ClassEncoding(4, kind)
    assert torch.equal(torch.jit.script(encoding)(LABEL), encoding(LABEL))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="'one-hot' is unknown; choose one of index, onehot, image"):
        ClassEncoding(4, "one-hot")
    with pytest.raises(UserError, match="0 classes"):
        ClassEncoding(0)


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
    texture = make_fixed_texture(2)
    assert list(texture.state_dict()) == ["noise"]
    assert not any(parameter.requires_grad for parameter in texture.parameters())


def test_none_is_nothing() -> None:
    x = torch.rand(1, 1, 4, 4)
    assert isinstance(make_fixed_texture(0), nn.Identity) and make_fixed_texture(0)(x) is x


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
    assert make_drawn_noise(0)(x, x, torch.randn(1, 4, 2, 2)) is x and not make_drawn_noise(0).state_dict()


def test_noise_channels_are_found_within_a_network() -> None:
    assert noise_channels(nn.Sequential(nn.Sequential(make_drawn_noise(3)), make_fixed_texture(2))) == 3
    assert noise_channels(nn.Sequential(make_fixed_texture(2))) == 0

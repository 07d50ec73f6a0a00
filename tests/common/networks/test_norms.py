from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.norms import monai_norm, norm_layer

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

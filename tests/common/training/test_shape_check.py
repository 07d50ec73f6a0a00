from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from torch import nn

from bundles.dcgan_covid.networks import DcganDiscriminator, DcganGenerator
from bundles.lung_two_stage.generation.networks import CapsuleDiscriminator
from bundles.pix2pix_covid.networks import UnetGenerator
from common.errors import UserError
from common.networks.discriminators import AugmentedDiscriminator, ConditionalPatchDiscriminator
from common.training.shape_check import (
    check_critic,
    check_fit,
    warn_of_running_averages,
    warn_of_tied_samples,
)


def networks() -> tuple[nn.Module, nn.Module]:
    return UnetGenerator(levels=4, ngf=2), ConditionalPatchDiscriminator(
        channels=2, num_layers_d=1, spectral=True
    )


def test_a_fitting_size_leaves_no_trace() -> None:
    pair = networks()
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in pair]
    state = torch.get_rng_state()
    check_fit(*pair, 32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(net.training for net in pair)
    for net, values in zip(pair, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("size", [40, 8])
def test_other_sizes_are_named(size: int) -> None:
    with pytest.raises(UserError, match=f"image_size {size} does not fit the networks"):
        check_fit(*networks(), size)


def test_images_of_another_size_are_named() -> None:
    with pytest.raises(UserError, match=r"images of \(16, 16\)"):
        check_fit(nn.Conv2d(1, 1, 2, stride=2), networks()[1], 32)


def test_noise_and_classes_are_tried_too() -> None:
    noise, judge = DcganGenerator(32, latent=5, width=2), DcganDiscriminator(32, width=2)
    check_fit(noise, judge, 32, inputs=["latent"], condition=None, latent=5)
    with pytest.raises(UserError, match="image_size 32 does not fit the networks"):
        check_fit(noise, judge, 32, inputs=["latent"], condition=None, latent=6)
    pair = DcganGenerator(32, latent=5, width=2, classes=3), DcganDiscriminator(32, width=2, classes=3)
    check_fit(*pair, 32, inputs=["latent", "class"], condition="class", latent=5)


def judge(norm: str = "layer", **settings: Any) -> nn.Module:
    return DcganDiscriminator(16, width=2, norm=norm, **settings)


def capsules(gradients: str) -> nn.Module:
    return CapsuleDiscriminator(16, width=2, maps=1, gradients=gradients)


@pytest.mark.parametrize(
    ("network", "settings", "said"),
    [
        (judge(), {}, "gradient_penalty (10.0"),
        (judge(spectral=True), {}, ""),
        (judge(), {"penalty": 10.0}, ""),
        (judge(), {"penalty": 10.0, "penalty_at": "both"}, ""),
        (judge(), {"penalty_at": "both"}, "gradient_penalty (10.0"),
        (judge(), {"penalty": 10.0, "penalty_at": "here"}, "choose one of between, real, fake, both"),
        (judge(), {"weight_clip": 0.01}, ""),
        (judge("batch"), {"penalty": 10.0}, "discriminator_def#norm to layer"),
        (judge("batch"), {"weight_clip": 0.01}, "discriminator_def#norm to layer"),
        (capsules("last"), {"penalty": 10.0}, "discriminator_def#gradients last"),
        (capsules("all"), {"penalty": 10.0}, ""),
        (capsules("last"), {"weight_clip": 0.01}, ""),
    ],
)
def test_a_critic_needs_a_bound_that_holds(network: nn.Module, settings: dict[str, Any], said: str) -> None:
    for wrapped in (network, AugmentedDiscriminator(network)):
        if not said:
            check_critic(wrapped, "wasserstein", **settings)
            continue
        with pytest.raises(UserError, match=re.escape(said)) as error:
            check_critic(wrapped, "wasserstein", **settings)
        assert "\n" not in str(error.value)


def test_other_losses_need_no_bound_but_a_true_gradient() -> None:
    check_critic(judge("batch"), "bce")
    check_critic(judge("batch"), "relativistic")
    check_critic(judge("batch"), "hinge", penalty=1.0)
    check_critic(capsules("last"), "margin")
    with pytest.raises(UserError, match="discriminator_def#gradients last"):
        check_critic(capsules("last"), "bce", penalty=1.0)
    with pytest.raises(UserError, match="'wgan' is unknown"):
        check_critic(judge(), "wgan")


def test_batch_norm_is_warned_of_where_it_means_something_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for norm in ("layer", "instance", "none"):
            warn_of_tied_samples(judge(norm), 10.0)
            warn_of_running_averages(UnetGenerator(levels=3, ngf=2, norm=norm), 1)
        warn_of_tied_samples(judge("batch"), 0.0)
        warn_of_running_averages(UnetGenerator(levels=3, ngf=2), 2)
        assert caplog.text == ""
        warn_of_tied_samples(judge("batch"), 10.0)
        warn_of_running_averages(UnetGenerator(levels=3, ngf=2), 1)
    assert "ties the samples" in caplog.text and "network_def#norm instance" in caplog.text

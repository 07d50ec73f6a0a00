from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.dcgan_covid.networks import DcganDiscriminator, DcganGenerator
from bundles.pix2pix_covid.networks import UnetGenerator
from common.errors import UserError
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.training.fitting import check_fit


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

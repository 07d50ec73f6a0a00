from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.lung_two_stage.segmentation.network import DenseLayer, DenseUNet, Segmenter, UNet, UNetPlusPlus
from common.errors import UserError


def test_the_default_network_has_the_parameters_it_states() -> None:
    network = DenseUNet()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 405569 and "405 569" in str(DenseUNet.__doc__)
    assert [block[0].in_channels for block in network.encoder] == [1, 16, 32, 64]
    assert [up.out_channels for up in network.up] == [16, 32, 64]
    convolutions = [layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 8
    assert sum(isinstance(layer, DenseLayer) for layer in network.decoder.modules()) == 9


@pytest.mark.parametrize(
    "network", [DenseUNet(4, 2, 3, 2), UNet(4), UNetPlusPlus(4)], ids=["dense", "unet", "++"]
)
def test_logits_of_any_size(network: Segmenter) -> None:
    images = torch.rand(2, 1, 33, 48) * 2 - 1
    with torch.no_grad():
        logits = network.eval()(images)
        missing = -33 % network.multiple
        whole = network(nn.functional.pad(images, (0, 0, 0, missing), mode="replicate"))
    assert logits.shape == (2, 1, 33, 48) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, whole[..., :33, :48])


def test_a_dense_layer_keeps_what_it_sees() -> None:
    layer = DenseLayer(5, 3)
    features = torch.rand(2, 5, 8, 8)
    out = layer(features)
    assert out.shape == (2, 8, 8, 8) and torch.equal(out[:, :5], features)


def test_logits_are_float32_whatever_they_are_computed_in() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert DenseUNet(4, 1, 2, 1)(torch.zeros(1, 1, 8, 8)).dtype == torch.float32


def test_sizes_that_make_no_network() -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        DenseUNet(growth=0)

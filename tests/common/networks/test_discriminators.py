from __future__ import annotations

import pytest
import torch
from torch import nn

from common.networks.discriminators import ConditionalPatchDiscriminator


def field(layers: int, scale: int = 0) -> tuple[int, int]:
    """Height and width of what one logit in the middle sees, by its gradient."""
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=layers, scales=scale + 1, norm="INSTANCE")
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d):  # it looks at the whole picture
            module.forward = lambda x: x
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)  # no path cancels another
    image = torch.rand(1, 1, 352, 352, requires_grad=True)
    logits = net(image, torch.zeros_like(image)).logits[scale]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_sees_as_many_pixels_as_published(layers: int, side: int) -> None:
    assert field(layers) == (side, side)


def test_the_next_scale_sees_twice_as_far() -> None:
    assert field(2, scale=1) == (2 * 34 + 1, 2 * 34 + 1)  # the pool of 3 adds one


def test_shapes_of_logits_and_features() -> None:
    net = ConditionalPatchDiscriminator(condition_channels=2, channels=4, scales=2)
    critique = net(torch.rand(3, 1, 64, 64), torch.rand(3, 2, 64, 64))
    assert [tuple(logits.shape) for logits in critique.logits] == [(3, 1, 6, 6), (3, 1, 2, 2)]
    assert [tuple(f.shape[:2]) for f in critique.features[0]] == [(3, 4), (3, 8), (3, 16), (3, 32)]


def test_the_papers_discriminator_has_its_published_size() -> None:
    """Isola et al. 2017: 4 x 4 convolutions 2-64-128-256-512-1; norms have 2 values a channel."""
    convolutions = [(2, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    weights = sum(16 * source * target for source, target in convolutions)
    # biases where no norm follows, and the norms' scales and shifts
    assert sum(p.numel() for p in ConditionalPatchDiscriminator().parameters()) == weights + 64 + 1 + 2 * 896


def test_the_condition_matters_and_can_be_left_out() -> None:
    image, condition = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=1).eval()
    assert not torch.equal(net(image, condition).logits[0], net(image, 1 - condition).logits[0])
    alone = ConditionalPatchDiscriminator(condition_channels=0, channels=4, num_layers_d=1)
    assert alone(image).logits[0].shape == (1, 1, 14, 14)


def test_spectral_norm_bounds_every_convolution() -> None:
    torch.manual_seed(0)
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=2, spectral=True)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for _ in range(30):  # power iterations
        net(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    for convolution in convolutions:
        largest = torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2)
        assert float(largest.detach()) == pytest.approx(1, abs=0.02)

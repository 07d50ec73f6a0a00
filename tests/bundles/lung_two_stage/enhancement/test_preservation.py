"""The term looks at nodules and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bundles.lung_two_stage.enhancement.preservation import NodulePreservation


def images() -> tuple[Tensor, Tensor]:
    """A composite of zeros and a mask of one pixel of class 2."""
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 3, 3] = 2
    return torch.zeros(1, 1, 7, 7), mask


def test_changes_elsewhere_cost_nothing() -> None:
    composite, mask = images()
    enhanced = torch.ones(1, 1, 7, 7)
    enhanced[..., 2:5, 2:5] = 0
    assert float(NodulePreservation(margin=1)(enhanced, composite, mask)) == 0
    assert float(NodulePreservation(margin=2)(enhanced, composite, mask)) > 0


def test_a_lost_nodule_costs_its_contrast() -> None:
    composite, mask = images()
    enhanced = composite + 0.5 * (mask > 0)
    assert float(NodulePreservation(0.0, 0)(enhanced, composite, mask)) == 0.5
    assert float(NodulePreservation(0.0, 1)(enhanced, composite, mask)) == pytest.approx(0.5 / 9)
    # 12 pairs of neighbours in 3 x 3, of which 4 have the pixel: 2 of 6 down, 2 of 6 to the right
    assert float(NodulePreservation(1.0, 1)(enhanced, composite, mask)) == pytest.approx(
        0.5 / 9 + 2 * 0.5 * 2 / 6
    )


def test_a_shift_of_all_gray_values_keeps_edges() -> None:
    composite, mask = images()
    shifted = composite + 0.25
    assert float(NodulePreservation(5.0)(shifted, composite, mask)) == pytest.approx(0.25)


def test_without_nodules_it_is_nothing_and_differentiable() -> None:
    composite = torch.zeros(1, 1, 5, 5, requires_grad=True)
    loss = NodulePreservation()(composite + 1, torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5))
    loss.backward()
    assert float(loss.detach()) == 0 and float(composite.grad.abs().sum()) == 0


def test_a_batch_without_masks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no mask"):
        NodulePreservation()(*images(), None)


def test_contrast_is_against_the_ring() -> None:
    """32 pixels: a gap of 1 and a ring of 2. What both lose is no contrast."""
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, 12:18, 12:18] = 1
    composite = mask - 1
    term = NodulePreservation(0.0, 0, contrast=1.0)
    assert float(term(composite + 0.25, composite, mask)) == pytest.approx(0.25)  # the nodule's own change
    lost = composite - 0.5 * mask
    assert float(term(lost, composite, mask)) == pytest.approx(0.5 + 0.5 / 2)  # the second has no nodule
    elsewhere = composite.clone()
    elsewhere[..., :4] = 1
    assert float(term(elsewhere, composite, mask)) == 0

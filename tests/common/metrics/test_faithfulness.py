from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics import faithfulness as metrics
from common.metrics.faithfulness import contrast_error, contrast_parts, lesion_contrast, lesion_ring


def lesions(count: int = 12, size: int = 64) -> tuple[Tensor, Tensor]:
    """Lungs at -0.8 right of a chest wall at 0.4; lesions at the wall or not, each of its own brightness."""
    numbers = np.random.default_rng(2)
    images = torch.full((count, 1, size, size), -0.8)
    images[:, :, :, :20] = 0.4
    labels = torch.zeros_like(images)
    for index, (top, left) in enumerate(numbers.integers((12, 20), (40, 44), (count, 2))):
        labels[index, 0, top : top + 9, left : left + 7] = 1
    brightness = torch.from_numpy(numbers.uniform(-0.5, 0.2, count).astype(np.float32))
    return torch.where(labels > 0, brightness[:, None, None, None], images), labels


def faithfulness(generated: Tensor, images: Tensor, labels: Tensor) -> float:
    return of_contrasts(lesion_contrast(generated, labels), lesion_contrast(images, labels))


def of_contrasts(generated: Tensor, real: Tensor) -> float:
    return metrics.faithfulness(contrast_parts(generated, real).sum(0))


def test_contrast_is_that_to_the_lung_even_beside_the_wall() -> None:
    images, labels = lesions()
    brightness = (images * labels).sum((1, 2, 3)) / labels.sum((1, 2, 3))
    assert torch.allclose(lesion_contrast(images, labels).float(), brightness + 0.8, atol=1e-5)


def test_the_real_images_score_one_and_a_flat_image_zero() -> None:
    images, labels = lesions()
    assert faithfulness(images, images, labels) == pytest.approx(1)
    assert faithfulness(torch.full_like(images, 0.3), images, labels) == pytest.approx(0)


def test_half_the_contrast_scores_half_and_an_inverted_lesion_minus_one() -> None:
    images, labels = lesions()
    half = torch.where(labels > 0, (images - 0.8) / 2, images)
    lung = torch.where(labels > 0, -0.2, -0.8)
    inverted = torch.where(labels > 0, -0.2 - 0.6 * 2, lung)
    assert faithfulness(half, images, labels) == pytest.approx(0.5, abs=1e-6)
    assert faithfulness(lung, lung, labels) == pytest.approx(1)
    assert faithfulness(inverted, lung, labels) == pytest.approx(-1, abs=1e-6)
    assert faithfulness(-lung, lung, labels) == pytest.approx(-1, abs=1e-6)


def test_images_that_ignore_the_masks_score_about_zero_or_less() -> None:
    images, labels = lesions(24)
    mean = images.mean(0, keepdim=True).expand_as(images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 0.5
    assert faithfulness(mean, images, labels) < 0.15
    assert faithfulness(images.roll(1, 0), images, labels) < 0.3
    assert abs(faithfulness(noise, images, labels)) < 0.1


def test_noise_on_the_real_images_costs_little() -> None:
    images, labels = lesions(24)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert faithfulness(images + noise, images, labels) > 0.9


def test_images_without_lesion_are_left_out() -> None:
    images, labels = lesions(3)
    labels[1] = 0
    contrasts = lesion_contrast(images, labels)
    assert contrasts.isnan().tolist() == [False, True, False]
    assert of_contrasts(contrasts, contrasts) == 1
    assert math.isnan(of_contrasts(contrasts[1:2], contrasts[1:2]))


def test_a_lesion_without_surroundings_has_no_contrast() -> None:
    assert lesion_contrast(torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)).isnan().all()


def test_error_and_weights_by_hand() -> None:
    generated, real = torch.tensor([0.5, 0.1, 0.9]), torch.tensor([0.4, 0.4, math.nan])
    weights = torch.tensor([3.0, 1.0, 5.0])
    parts = contrast_parts(generated, real)
    assert contrast_error(parts.sum(0)) == pytest.approx(0.2)
    assert contrast_error(weights.double() @ parts) == pytest.approx((3 * 0.1 + 0.3) / 4)
    assert metrics.faithfulness(weights.double() @ parts) == pytest.approx(1 - 0.6 / 1.6)


def test_any_channel_of_a_label_map_is_lesion() -> None:
    images, labels = lesions(2)
    split = torch.cat([labels * (torch.arange(64) < 30), labels * (torch.arange(64) >= 30)], dim=1)
    assert torch.equal(lesion_contrast(images, split), lesion_contrast(images, labels))


def test_the_ring_keeps_its_distance() -> None:
    lesion = torch.zeros(1, 64, 64, dtype=torch.bool)
    lesion[0, 30, 40] = True
    ring = lesion_ring(lesion)[0]
    assert ring[30].nonzero().flatten().tolist() == [35, 36, 37, 38, 42, 43, 44, 45]
    assert int(ring.sum()) == 11**2 - 3**2

"""Predictions that need no model. Evaluated like a model's, they say what a metric's value means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.random import generator

OVERLAP_SIZE = 64  # masks are compared at this size: enough for retrieval, small for large sets


def baseline_predictions(
    train_images: Tensor,
    train_labels: Tensor,
    train_patients: Sequence[str],
    test_labels: Tensor,
    test_patients: Sequence[str],
    seed: int = 0,
) -> dict[str, Tensor]:
    """Three sets of predictions for the test labels, each (N, 1, H, W) like the test images.

    ``mean_image`` ignores the mask and has no detail; ``nearest_mask`` is a real image whose lesions lie
    alike; ``real_real`` is a real image of another patient, perfect in looks and blind to the mask.

    Args:
        train_images: (M, 1, H, W) in [-1, 1].
        train_labels, test_labels: (M, C, H, W) and (N, C, H, W).
        train_patients, test_patients: one id an image.
    """
    others = other_patients(train_patients, test_patients, generator(seed, "baselines", "real_real"))
    nearest = nearest_masks(train_labels, test_labels)
    return {
        "mean_image": mean_image(train_images, len(test_labels)),
        "nearest_mask": train_images[torch.from_numpy(nearest)],
        "real_real": train_images[torch.from_numpy(others)],
    }


def mean_image(train_images: Tensor, count: int) -> Tensor:
    """The training set's mean image, ``count`` times: (count, 1, H, W), without copies."""
    mean = train_images.mean(0, keepdim=True, dtype=torch.float64).to(train_images.dtype)
    return mean.expand(count, -1, -1, -1)


def nearest_masks(train_labels: Tensor, test_labels: Tensor) -> np.ndarray:
    """For each test mask the index (N,) of the training mask with the highest Dice overlap (first of equals).

    Where nothing overlaps (an empty mask, above all) the one with the nearest lesion area is taken.
    """
    train, test = _small_masks(train_labels), _small_masks(test_labels)  # (M, P), (N, P)
    train_area, test_area = train.sum(1), test.sum(1)
    overlap = test @ train.T  # (N, M)
    dice = 2 * overlap / np.maximum(test_area[:, None] + train_area[None], 1e-9)
    by_area = np.abs(test_area[:, None] - train_area[None]).argmin(1)
    return np.where(overlap.any(1), dice.argmax(1), by_area)


def other_patients(
    train_patients: Sequence[str], test_patients: Sequence[str], numbers: np.random.Generator
) -> np.ndarray:
    """For each test image a random training image of another patient: indices (N,), few repeated.

    Raises:
        UserError: all training images are of the one patient under test.
    """
    names = np.asarray(train_patients)
    order = numbers.permutation(len(names))
    uses = np.zeros(len(names), dtype=np.int64)
    chosen = []
    for patient in test_patients:
        allowed = order[names[order] != patient]
        if not len(allowed):
            raise UserError(f"{patient}: no training image of another patient; bring more patients")
        pick = allowed[uses[allowed].argmin()]
        uses[pick] += 1
        chosen.append(pick)
    return np.asarray(chosen, dtype=np.int64)


def _small_masks(labels: Tensor) -> np.ndarray:
    lesion = (labels > 0.5).any(1, keepdim=True).float()  # (N, 1, H, W)
    if min(lesion.shape[-2:]) > OVERLAP_SIZE:
        lesion = F.adaptive_avg_pool2d(lesion, OVERLAP_SIZE)
    return np.asarray(lesion.flatten(1).numpy())  # (N, P)

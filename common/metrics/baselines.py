"""Baselines: predictions without a model, which show what a metric's value means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.labels import class_count, is_condition_image
from common.errors import UserError
from common.rng import make_rng

OVERLAP_SIZE = 64  # pixels; masks are compared at this size
CHUNK = 64  # labels resized at once


def baseline_predictions(
    train_images: Tensor,
    train_labels: Tensor,
    train_patients: Sequence[str],
    test_labels: Tensor,
    test_patients: Sequence[str],
    seed: int = 0,
    sources: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Tensor]:
    """Makes sets of predictions for the test labels, each (N, 1, H, W) like the test images.

    ``mean_image`` ignores the mask and has no detail; ``nearest_mask`` is a real image with a similar mask;
    ``real_real`` is a real image of another patient, which looks perfect and ignores the mask. If the
    condition is an image, ``condition`` is that image.

    Args:
        train_images: (M, 1, H, W) in [-1, 1].
        train_labels, test_labels: (M, C, H, W) and (N, C, H, W).
        train_patients, test_patients: one id per image.
        sources: from `baseline_sources`, if they exist already.

    Example:
        >>> train, test = torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8)
        >>> train[0, 0, :4], train[1, 0, 4:], test[0, 0, 5:] = 1, 1, 1  # masks
        >>> images = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
        >>> sets = baseline_predictions(images, train, ["a", "b"], test, ["c"])
        >>> {name: float(each[0, 0, 0, 0]) for name, each in sets.items() if name != "real_real"}
        {'mean_image': 0.0, 'nearest_mask': 0.5}
    """
    if sources is None:
        sources = baseline_sources(train_labels, train_patients, test_labels, test_patients, seed)
    condition = {"condition": test_labels[:, :1]} if is_condition_image(test_labels) else {}
    return {
        **condition,
        "mean_image": mean_image(train_images, len(test_labels)),
        **{name: train_images[torch.from_numpy(indices)] for name, indices in sources.items()},
    }


def baseline_sources(
    train_labels: Tensor,
    train_patients: Sequence[str],
    test_labels: Tensor,
    test_patients: Sequence[str],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Finds the training images of the baselines ``nearest_mask`` and ``real_real``: indices (N,) each."""
    return {
        "nearest_mask": nearest_masks(train_labels, test_labels),
        "real_real": other_patients(train_patients, test_patients, make_rng(seed, "baselines", "real_real")),
    }


def mean_image(train_images: Tensor, count: int) -> Tensor:
    """Computes the training set's mean image, expanded without copies to (count, 1, H, W).

    Example:
        >>> mean_image(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), 3).flatten().tolist()
        [0.5, 0.5, 0.5]
    """
    mean = train_images.mean(0, keepdim=True, dtype=torch.float64).to(train_images.dtype)
    return mean.expand(count, -1, -1, -1)


def nearest_masks(train_labels: Tensor, test_labels: Tensor) -> np.ndarray:
    """Finds the most similar training label for each test label: indices (N,), the first of equals.

    Masks are compared by Dice, class maps by the mean Dice of the classes that either of the two has. If
    nothing overlaps, as with an empty mask, the label with the nearest areas is taken. Condition images are
    compared by squared distance.
    """
    if is_condition_image(train_labels) or is_condition_image(test_labels):
        return _squared_distance(_small(train_labels), _small(test_labels)).argmin(1)
    classes = max(class_count(train_labels), class_count(test_labels))
    dice, present, area_distance = (np.zeros((len(test_labels), len(train_labels))) for _ in range(3))
    for index in range(1, max(classes, 1) + 1):
        train, test = (_small(_mask(labels, index, classes)) for labels in (train_labels, test_labels))
        areas = test.sum(1)[:, None] + train.sum(1)[None]  # (N, M)
        dice += 2 * (test @ train.T) / np.maximum(areas, 1e-9)
        present += areas > 0
        area_distance += np.abs(test.sum(1)[:, None] - train.sum(1)[None])
    return np.where(dice.any(1), (dice / np.maximum(present, 1)).argmax(1), area_distance.argmin(1))


def other_patients(
    train_patients: Sequence[str], test_patients: Sequence[str], numbers: np.random.Generator
) -> np.ndarray:
    """Draws a training image of another patient for each test image, all equally often: indices (N,).

    Raises:
        UserError: all training images belong to a patient under test.
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


def _mask(labels: Tensor, index: int, classes: int) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W) bool: one class of a class map, else the lesion of any channel."""
    return labels[:, :1].round() == index if classes > 1 else (labels > 0.5).any(1, keepdim=True)


def _small(labels: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, P) float32 at the size of comparison, in parts to save memory."""
    if min(labels.shape[-2:]) <= OVERLAP_SIZE:
        return np.asarray(labels.float().flatten(1).numpy())
    parts = [F.adaptive_avg_pool2d(part.float(), OVERLAP_SIZE).flatten(1) for part in labels.split(CHUNK)]
    return np.asarray(torch.cat(parts).numpy())


def _squared_distance(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Computes squared distances of (M, P) and (N, P): (N, M)."""
    first, second = test.astype(np.float64), train.astype(np.float64)
    return (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T

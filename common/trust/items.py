"""Slices in memory as trainings of a report take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.data.augment import Augmentation, AugmentationDraw, apply_to_image, apply_to_mask
from common.data.sampling import Draw
from common.random import generator

LIGHT = Augmentation(flip=0.5, shift=0.04, scale=0.06, rotation=6.0)


class TrainingSlices(Dataset[dict[str, Any]]):
    """Slices (1, S, S) in [-1, 1] with their targets. A `Draw` is augmented, a plain number is not.

    Args:
        images: (N, 1, S, S).
        targets: by name: maps (N, 1, S, S), which go the image's way, or numbers (N,).
        seed: of the draws.
    """

    def __init__(self, images: Tensor, targets: Mapping[str, Tensor], seed: int = 0) -> None:
        self.images, self.targets, self.seed = images, dict(targets), seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        place = visit.sample if isinstance(visit, Draw) else int(visit)
        if place >= len(self):
            raise IndexError(place)
        image, targets = self.images[place], {name: values[place] for name, values in self.targets.items()}
        if isinstance(visit, Draw):
            drawn = LIGHT.draw(generator(self.seed, "trust", visit.epoch, visit.sample))
            image = _moved_image(image, drawn)
            targets = {name: _moved_map(target, drawn) for name, target in targets.items()}
        return {"image": image, **targets, "sample": place}


def _moved_image(image: Tensor, drawn: AugmentationDraw) -> Tensor:
    return _plane(apply_to_image((image[0].numpy() + 1) / 2, drawn) * 2 - 1)


def _moved_map(target: Tensor, drawn: AugmentationDraw) -> Tensor:
    """A map (1, S, S); a number stays."""
    return _plane(apply_to_mask(target[0].numpy(), drawn)) if target.ndim else target


def _plane(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]

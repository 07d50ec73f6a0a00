"""Slices with their nodules in memory: what a diagnosis learns from, real and made ones alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.composition.reading import Composites
from bundles.lung_two_stage.enhancement.images import to_images
from common.data.augment import Augmentation, apply_to_image, apply_to_mask
from common.data.intensity import Window
from common.data.sampling import Draw
from common.errors import UserError
from common.random import generator

NODULE, CATEGORY, JOINT = "nodule", "category", "joint"
TASKS = (NODULE, CATEGORY, JOINT)
"""What a slice's class is: whether it has a nodule (0 or 1); the category of those that have one; or both: 0
for none, else the category's number + 1."""


@dataclass(frozen=True)
class Slices:
    """Some slices.

    Args:
        images: (N, 1, H, W) float32 in [-1, 1].
        nodules: (N, H, W) uint8: the category's number + 1, or 1 without categories; 0 none.
        patients: N; empty for slices of nobody.
    """

    images: Tensor
    nodules: NDArray[np.uint8]
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def has_nodule(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.asarray((self.nodules > 0).any((1, 2)))

    @property
    def category(self) -> NDArray[np.int64]:
        """(N,) the number of the category with most pixels; -1 for slices without a nodule."""
        highest = int(self.nodules.max(initial=0))
        areas = np.stack(
            [(self.nodules == k).sum((1, 2)) for k in range(1, highest + 1)] or [[0] * len(self)]
        )
        return np.where(self.has_nodule, areas.argmax(0), -1)

    def at(self, places: Sequence[int] | NDArray) -> Slices:
        """The slices at these places, in this order; places may repeat."""
        chosen = np.asarray(places, np.int64)
        return Slices(self.images[chosen], self.nodules[chosen], [self.patients[k] for k in chosen])

    def beside(self, other: Slices) -> Slices:
        """These slices and then the others."""
        return Slices(
            torch.cat([self.images, other.images]),
            np.concatenate([self.nodules, other.nodules]),
            [*self.patients, *other.patients],
        )


def of_bank(bank: SliceBank, window: Window) -> Slices:
    """All slices of a bank."""
    patients = [record.patient for record in bank.records]
    return Slices(to_images(np.asarray(bank.hu), window), np.asarray(bank.nodules), patients)


def of_composites(folder: str | os.PathLike[str], window: Window, most: int, seed: int = 0) -> Slices:
    """Composites, ``most`` drawn of all.

    Raises:
        UserError: the shards are not finished.
    """
    composites = Composites(folder)
    drawn = generator(seed, "diagnosis", "composites").permutation(len(composites))[:most]
    chosen = [composites[int(number)] for number in sorted(drawn)]
    images = to_images(np.stack([composite.image for composite in chosen]), window)
    return Slices(images, np.stack([composite.mask for composite in chosen]), [""] * len(chosen))


class SliceItems(Dataset[dict[str, Any]]):
    """Slices as training takes them. A `Draw` is augmented, a plain number is not.

    Items hold ``image`` (1, H, W) in [-1, 1], ``label``, its nodules (1, H, W) in {0, 1}, ``class``, see
    `TASKS`, and ``sample``.

    Args:
        slices: of the task category only those with a nodule are kept.
        task: see `TASKS`.
        augment: of the draws.
        seed: of the draws.
    Raises:
        UserError: an unknown task, or no slice that fits it.
    """

    def __init__(
        self, slices: Slices, task: str = NODULE, augment: Augmentation | None = None, seed: int = 0
    ) -> None:
        if task not in TASKS:
            raise UserError(f"task {task!r} is unknown; choose {' or '.join(TASKS)}")
        self.slices = slices.at(np.flatnonzero(slices.has_nodule)) if task == CATEGORY else slices
        if not len(self.slices):
            raise UserError(f"task {task}: none of the {len(slices)} slices has a nodule")
        self.classes = classes_of(self.slices, task)
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        place = visit.sample if isinstance(visit, Draw) else int(visit)
        if place >= len(self):
            raise IndexError(place)
        image, mask = self.slices.images[place, 0].numpy(), self.slices.nodules[place] > 0
        if isinstance(visit, Draw) and self.augment is not None:
            drawn = self.augment.draw(generator(self.seed, "diagnosis", visit.epoch, visit.sample))
            image = apply_to_image((image + 1) / 2, drawn) * 2 - 1
            mask = apply_to_mask(mask, drawn)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image, np.float32))[None],
            "label": torch.from_numpy(mask.astype(np.float32))[None],
            "class": int(self.classes[place]),
            "sample": place,
        }


def classes_of(slices: Slices, task: str) -> NDArray[np.int64]:
    """The class of each slice (N,), see `TASKS`."""
    if task == NODULE:
        return slices.has_nodule.astype(np.int64)
    return slices.category + (task == JOINT)


def enhanced_slices(slices: Slices, network: Callable[[Tensor], Tensor] | None) -> Slices:
    """The same slices after the enhancer, or as they are without one: what composites are made of must go
    the composites' way, or a diagnosis learns to tell the enhancer's traces from none."""
    if network is None:
        return slices
    with torch.inference_mode():
        images = torch.cat([network(batch) for batch in slices.images.split(16)])
    return Slices(images.clone(), slices.nodules, slices.patients)

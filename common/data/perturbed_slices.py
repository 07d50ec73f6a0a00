"""Slices whose label was perturbed, with the true one beside it: what learns to draw image and annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from common.data.augment import Augmentation
from common.data.peers import Peers
from common.data.perturb import Perturbation, perturbed
from common.data.sampling import Draw
from common.data.slices import SliceDataset, first_of
from common.data.stored_pairs import StoredPair
from common.data.structures import LabelSet
from common.errors import UserError
from common.random import generator


class PerturbedSlices(SliceDataset):
    """A `SliceDataset` whose ``label`` is perturbed, and whose items have the true map as ``annotation``.

    A `Draw` has the perturbation drawn for that visit; an int index has one that belongs to the slice and is
    always the same.

    Args:
        perturb: the strengths.
        coarse: probability that a visit's label, after that, has chambers and myocardium merged into the
            class ``whole_heart``. The annotation keeps them apart.
    Raises:
        UserError: the condition is an image, or ``coarse`` without that class.
    """

    def __init__(
        self,
        pairs: Sequence[StoredPair],
        label_set: LabelSet | None,
        min_pixels: int = 1,
        every: int = 1,
        augment: Augmentation | None = None,
        seed: int = 0,
        coarse: float = 0.0,
        perturb: Perturbation | None = None,
    ) -> None:
        if label_set is None:
            raise UserError("perturb needs labels as condition; leave it out where the condition is an image")
        super().__init__(pairs, label_set, min_pixels, every, augment, seed, coarse)
        self.perturb = perturb or Perturbation()
        self.classes = len(label_set.classes)
        self._classes_merged = label_set.merged() if coarse > 0 else None
        self._share_merged, self.coarse = self.coarse, 0.0  # merged here, after the perturbation
        self._peers = Peers(self.samples)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        return first_of(self.__getitems__([visit]))

    def __getitems__(self, visits: Sequence[Draw | int]) -> dict[str, Any]:
        """A batch as `SliceDataset` gives it, and ``annotation`` float32 (B, 1, S, S), class indices."""
        batch = super().__getitems__(visits)
        labels = [
            self._perturbed(visit, map_) for visit, map_ in zip(visits, batch["label"][:, 0], strict=True)
        ]
        return {**batch, "label": torch.from_numpy(np.stack(labels)[:, None]), "annotation": batch["label"]}

    @property
    def labels(self) -> np.ndarray:
        """All perturbed labels, float32 (N, 1, S, S), each with its slice's own perturbation."""
        return np.stack([self[index]["label"].numpy() for index in range(len(self))])

    @property
    def annotations(self) -> np.ndarray:
        """All true labels, float32 (N, 1, S, S)."""
        return super().labels

    def spread(self, count: int) -> PerturbedSlices:
        """``count`` slices spread evenly over these (all of fewer), as a dataset of its own."""
        part = super().spread(count)
        assert isinstance(part, PerturbedSlices)  # a copy of this one
        part._peers = Peers(part.samples)
        return part

    def _perturbed(self, visit: Draw | int, label: torch.Tensor) -> np.ndarray:
        """The condition of a visit, float32 (S, S)."""
        index, random = self._random(visit)
        draw = self.perturb.draw(random, (self.size, self.size), self.classes)
        partner = self._peers.draw(index, random)
        other = self._class_map(partner) if partner is not None and draw.weight > 0 else None
        result = perturbed(label.numpy().astype(np.uint8), draw, other)
        if (
            isinstance(visit, Draw)
            and self._classes_merged is not None
            and random.random() < self._share_merged
        ):
            result = self._classes_merged[result]
        return result.astype(np.float32)

    def _random(self, visit: Draw | int) -> tuple[int, np.random.Generator]:
        if isinstance(visit, Draw):
            return visit.sample, generator(self.seed, "perturbation", visit.epoch, visit.sample)
        return int(visit), generator(0, "perturbation", self.samples[int(visit)].name)

    def _class_map(self, index: int) -> np.ndarray:
        label = np.empty((self.size, self.size), np.float32)
        self._read_label(index, label)
        return label.astype(np.uint8)


def perturbation(settings: Perturbation | Mapping[str, float] | None) -> Perturbation | None:
    """The object of a config's settings."""
    return Perturbation(**settings) if isinstance(settings, Mapping) else settings

"""Slices of stored volumes as training pairs: read when they are asked for, a batch in one pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.augment import Augmentation, AugmentationDraw, apply_to_image, apply_to_mask
from common.data.intensity import from_network, to_network
from common.data.noise import noise_place
from common.data.samples import Sample
from common.data.sampling import Draw
from common.data.store.reading import SliceReader
from common.data.store.volume import StoredVolume
from common.data.stored_pairs import StoredPair, selected_slices
from common.data.structures import LabelSet
from common.errors import UserError
from common.random import generator


class _Lookup(NamedTuple):
    """The class of each code, float32, and whether it is the code itself (a copy is faster)."""

    table: np.ndarray
    same: bool

    @classmethod
    def of(cls, table: np.ndarray | None, merged: np.ndarray | None = None) -> _Lookup | None:
        """For a pair's table, perhaps with classes ``merged``; None for images."""
        if table is None:
            return None
        classes = table if merged is None else merged[table]
        return cls(classes.astype(np.float32), bool((classes == np.arange(len(classes))).all()))


class SliceDataset(Dataset[dict[str, Any]]):
    """Image slices in [-1, 1] and label slices of class indices 0..K (or images in [-1, 1]), both (1, S, S).

    An int index gives the slice as it is, a `Draw` gives the augmented slice of that visit. A loader gets
    whole batches from `__getitems__`, ready to use: give it ``collate_fn=dataset.collate``.

    Args:
        pairs: the volumes, converted.
        label_set: the classes; None where the condition is an image.
        min_pixels: see `common.data.stored_pairs.selected_slices`.
        every: see there.
        augment: what is drawn for each visit; None for nothing.
        seed: the run's seed, for the augmentation.
        coarse: probability that a visit has chambers and myocardium merged into the class ``whole_heart``.

    Attributes:
        samples: one for each slice; ``index`` counts along the cut axis and is None for pictures.
        pairs: the volumes.
        size: S.
        dropped: number of slices that the filters took.
    Raises:
        UserError: no slices left, or ``coarse`` without that class.
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
    ) -> None:
        classes = () if label_set is None else label_set.classes
        self.pairs, self.augment, self.seed, self.coarse = list(pairs), augment, seed, _share(coarse)
        self._places = selected_slices(self.pairs, min_pixels, every, classes)  # (N, 2): pair, slice
        self.dropped = sum(pair.image.depth for pair in self.pairs) - len(self._places)
        self.size = self.pairs[0].image.geometry.size
        self.samples = self._listed()
        self._lookups = [_Lookup.of(pair.table) for pair in self.pairs]
        self._merged = self._lookups
        if coarse > 0:
            if label_set is None:
                raise UserError("coarse labels need labels as condition; set coarse to 0")
            self._merged = [_Lookup.of(pair.table, label_set.merged()) for pair in self.pairs]
        self._reader = SliceReader()
        self._codes = np.empty((self.size, self.size), np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        return first_of(self.__getitems__([visit]))

    def __getitems__(self, visits: Sequence[Draw | int]) -> dict[str, Any]:
        """A batch: ``image`` and ``label`` float32 (B, 1, S, S), ``sample`` int64 (B,).

        Where none is a draw, also the places in the noise, see `common.data.noise.noise_place`.
        """
        shape = (len(visits), 1, self.size, self.size)
        image, label = np.empty(
            (2, *shape), np.float32
        )  # in one, which the allocator keeps for the next batch
        samples = [visit.sample if isinstance(visit, Draw) else int(visit) for visit in visits]
        for row, (visit, sample) in enumerate(zip(visits, samples, strict=True)):
            drawn = visit if isinstance(visit, Draw) else None
            self._read_image(sample, image[row, 0])
            self._read_label(sample, label[row, 0], merged=drawn is not None and self._is_coarse(drawn))
            if drawn is not None and self.augment is not None:
                draw = self.augment.draw(generator(self.seed, "augmentation", drawn.epoch, drawn.sample))
                self._move(image[row, 0], label[row, 0], draw)
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "sample": torch.tensor(samples),
            **({} if any(isinstance(visit, Draw) for visit in visits) else self._noise_places(samples)),
        }

    def _noise_places(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        places = []
        for number, slice_ in self._places[list(numbers)].tolist():
            pair = self.pairs[number]
            mm = slice_ * pair.label.slice_mm if pair.is_volume else math.nan
            places.append(noise_place(pair.sample.name, mm))
        return {name: torch.tensor([place[name] for place in places]) for name in noise_place("")}

    @staticmethod
    def collate(batch: dict[str, Any]) -> dict[str, Any]:
        """For a loader's ``collate_fn``: what `__getitems__` gives is a batch already."""
        return batch

    @property
    def images(self) -> np.ndarray:
        """All images, float32 (N, 1, S, S) in [-1, 1]; read anew at each call."""
        images = np.empty((len(self), 1, self.size, self.size), np.float32)
        for index in range(len(self)):
            self._read_image(index, images[index, 0])
        return images

    @property
    def labels(self) -> np.ndarray:
        """All labels, float32 (N, 1, S, S); read anew at each call."""
        labels = np.empty((len(self), 1, self.size, self.size), np.float32)
        for index in range(len(self)):
            self._read_label(index, labels[index, 0])
        return labels

    @property
    def nominal_hu(self) -> bool:
        """Whether some of the values are not calibrated HU."""
        return not all(pair.image.is_hu for pair in self.pairs)

    def spread(self, count: int) -> SliceDataset:
        """``count`` slices spread evenly over these (all of fewer), as a dataset of its own."""
        places = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        part = copy.copy(self)
        part._places, part._reader, part._codes = self._places[places], SliceReader(), self._codes.copy()
        part.samples = [self.samples[place] for place in places]
        return part

    def volume_of(self, index: int) -> tuple[StoredVolume, int]:
        """The image volume of slice ``index``, and the slice's number in it along the cut axis."""
        number, place = self._places[index]
        return self.pairs[number].image, int(place)

    def window_of(self, index: int) -> tuple[float, float]:
        """What -1 and 1 stand for in slice ``index``: HU, or the file's own values."""
        volume, _ = self.volume_of(index)
        return volume.lower, volume.upper

    def volumes(self, slices: np.ndarray) -> Iterator[tuple[StoredPair, np.ndarray]]:
        """The way back: slices (N, 1, S, S) in [-1, 1], one for each of these, volume by volume.

        Yields:
            the pair and its volume (H, W, D) in display order, float32 in HU or the file's own values; slices
            that the filters took are at the lower end.
        """
        for number, pair in enumerate(self.pairs):
            mine = np.flatnonzero(self._places[:, 0] == number)
            if not len(mine):
                continue
            stack = np.zeros((pair.image.depth, self.size, self.size), np.float32)
            stack[self._places[mine, 1]] = from_network(slices[mine, 0])
            lower, upper = pair.image.lower, pair.image.upper
            yield (
                pair,
                pair.image.to_source(stack * np.float32(upper - lower) + np.float32(lower), fill=lower),
            )

    def _listed(self) -> list[Sample]:
        records = [pair.sample for pair in self.pairs]
        return [
            replace(records[number], index=int(place)) if self.pairs[number].is_volume else records[number]
            for number, place in self._places
        ]

    def _read_image(self, index: int, out: np.ndarray) -> None:
        number, place = self._places[index]
        self._reader.image(self.pairs[number].image, int(place), out=out)
        _network_range(out)

    def _read_label(self, index: int, out: np.ndarray, merged: bool = False) -> None:
        number, place = self._places[index]
        lookup = (self._merged if merged else self._lookups)[number]
        if lookup is None:
            self._reader.image(self.pairs[number].label, int(place), out=out)
            _network_range(out)
            return
        self._reader.label(self.pairs[number].label, int(place), out=self._codes)
        if lookup.same:
            np.copyto(out, self._codes)
        else:
            np.take(lookup.table, self._codes, out=out, mode="clip")

    def _is_coarse(self, draw: Draw) -> bool:
        if self.coarse == 0.0:
            return False
        return bool(generator(self.seed, "coarse", draw.epoch, draw.sample).random() < self.coarse)

    def _move(self, image: np.ndarray, label: np.ndarray, draw: AugmentationDraw) -> None:
        """Augments one slice in place, image and label (S, S) alike."""
        image[:] = to_network(apply_to_image(from_network(image), draw))
        if self.pairs[0].table is not None:
            label[:] = apply_to_mask(label, draw)
        else:
            label[:] = to_network(apply_to_image(from_network(label), replace(draw, gamma=1.0)))


def first_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The item of a batch of one: tensors without the batch's dimension, numbers as such."""
    return {name: value[0] if value.ndim > 1 else value[0].item() for name, value in batch.items()}


def _network_range(unit: np.ndarray) -> None:
    """[0, 1] to [-1, 1], in place."""
    unit *= np.float32(2.0)
    unit -= np.float32(1.0)


def _share(coarse: float) -> float:
    if not 0.0 <= coarse <= 1.0:
        raise UserError(f"coarse {coarse}: give a probability from 0 to 1")
    return float(coarse)

"""Datasets of slices as networks see them: pairs, images with classes, slices of volumes, unpaired sets."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.image_io import for_each
from common.data.intensity import from_network
from common.data.labels import LabelSet
from common.data.loaders import Items, SampleIndex
from common.data.replay import (
    Item,
    ReplayDataset,
    ReplayTransforms,
    Transforms,
    flatten_transforms,
    is_random,
    noise_coordinates,
    plain_tensors,
    split_at_first_random,
)
from common.data.samples import Sample
from common.data.slice_cache import CachedPair, SliceReader, selected_slices
from common.errors import UserError
from common.rng import make_rng

logger = logging.getLogger(__name__)
EMPTY_MASKS = ("keep", "drop")


class PairDataset(ReplayDataset):
    """CT slices in [-1, 1] with lesion masks {0, 1}, both (1, S, S), kept in memory.

    Everything up to the first random transform is done once, here, in the main process; workers share it.
    An int index gives the pair as it is, a `SampleIndex` the augmented pair of that epoch. An item has
    ``image``, ``label`` (with masks), ``sample`` (its index), whatever else the transforms add, and, for an
    int index, the place of its noise, see `common.data.replay.noise_coordinates`.

    Args:
        samples: what to load; a transform finds each under ``record``, its files as ``image`` and ``label``.
        preprocessing: MONAI dictionary transforms, such as `common.data.transforms.slice_preprocessing`.
        augmentation: further, random transforms of a training set.
        seed: the run's seed, for the random transforms.
        empty_masks: ``keep`` or ``drop`` slices without a lesion pixel after resizing.
        training: whether transforms that learn from a set (`StandardizeIntensityd`) learn from this one.

    Attributes:
        samples: the samples kept, in order.
        images: float32 (N, 1, S, S).
        labels: float32 (N, 1, S, S) in {0, 1}; None for unconditional sets.
        dropped: number of slices dropped for their empty mask.
        nominal_hu: whether some of the values are not calibrated HU.
    Raises:
        UserError: a bad file, no slices left, or slices of several sizes after the transforms.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Transforms,
        augmentation: Transforms = None,
        seed: int = 0,
        empty_masks: str = "keep",
        training: bool = False,
    ) -> None:
        if empty_masks not in EMPTY_MASKS:
            raise UserError(f"empty_masks {empty_masks!r} is unknown; choose keep or drop")
        least = 1 if empty_masks == "drop" else 0
        steps = flatten_transforms([preprocessing, *([] if augmentation is None else [augmentation])])
        if augmentation is None and not training:
            steps = [step for step in steps if not is_random(step)]
        fixed, varying = split_at_first_random(steps)
        self.varying = ReplayTransforms(varying, seed)
        # Transforms of whole scans come after all slices are loaded and those without lesion are dropped.
        first = next((n for n, step in enumerate(fixed) if hasattr(step, "map_items")), len(fixed))
        load = ReplayTransforms(fixed[:first])
        loaded = for_each(samples, lambda sample: load(_initial_item(sample), 0), "reading")
        kept = [item for item in loaded if "label" not in item or float(item["label"].sum()) >= least]
        self.dropped = len(loaded) - len(kept)
        if not kept:
            where = samples[0].image.parent if samples else "the data set"
            raise UserError(
                f"{where}: no slices left to use ({self.dropped} with an empty mask); set empty_masks to keep"
            )
        for step in fixed[first:]:
            map_items = getattr(step, "map_items", None)
            kept = map_items(kept, training) if map_items else [ReplayTransforms(step)(i, 0) for i in kept]
        self.samples = [item["record"] for item in kept]
        self.nominal_hu = not all(item.get("is_hu", True) for item in kept)
        self._store([plain_tensors(item) for item in kept])

    def __getitem__(self, index: SampleIndex | int) -> Item:
        number = index.index if isinstance(index, SampleIndex) else int(index)
        item = super().__getitem__(index)
        item |= {key: item[key].float() for key in ("image", "label") if key in item}
        item["sample"] = number
        if "label" in item and not isinstance(
            index, SampleIndex
        ):  # in training noise is drawn for each visit
            item |= noise_coordinates(self.samples[number].name)
        return item

    def _store(self, items: Sequence[Item]) -> None:
        """Keeps tensors and numbers of the items; all images in one array, all labels in another."""
        self.images = _stack([item["image"] for item in items], self.samples)
        labels = [item["label"] for item in items if "label" in item]
        self.labels = _stack(labels, self.samples) if len(labels) == len(items) else None
        self.items = []
        for index, item in enumerate(items):
            kept = {key: value for key, value in item.items() if isinstance(value, torch.Tensor)}
            kept.pop("label", None)
            kept["image"] = torch.from_numpy(self.images[index])
            if self.labels is not None:
                kept["label"] = torch.from_numpy(self.labels[index])
            self.items.append(kept)


def _initial_item(sample: Sample) -> Item:
    """What the first transform gets; `LoadSliced` reads the record, MONAI's `LoadImaged` the paths."""
    item: Item = {"record": sample, "patient": sample.patient, "image": str(sample.image)}
    return item if sample.mask is None else {**item, "label": str(sample.mask)}


def _stack(arrays: Sequence[torch.Tensor], samples: Sequence[Sample]) -> np.ndarray:
    """float32 (N, ...)."""
    shapes = [tuple(array.shape) for array in arrays]
    other = next((n for n, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise UserError(
            f"{samples[other].image}: {shapes[other]} after preprocessing, but {samples[0].image.name} is "
            f"{shapes[0]}; put FitSquared or Resized into the list"
        )
    return np.stack([array.numpy() for array in arrays]).astype(np.float32, copy=False)


class ImageDataset(PairDataset):
    """CT slices (1, S, S) in [-1, 1], each with the index of its class.

    As `PairDataset`, without masks. Items hold ``image``, ``class`` and ``sample``.

    Args:
        samples: what to load.
        class_names: the classes; an item's ``class`` is the index of its category among them.
        preprocessing, augmentation, seed, training: see `PairDataset`.
        flips: double the set: image i + N is the left-right flip of image i, as in Gubbi's training set.

    Attributes:
        samples: one for each image, flips included.
        images: float32 (N, 1, S, S), flips included.
        classes: int64 (N,).
    Raises:
        UserError: a bad file, no images, or all of them the same.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        preprocessing: Transforms,
        augmentation: Transforms = None,
        seed: int = 0,
        flips: bool = False,
        training: bool = False,
    ) -> None:
        masked = next((sample for sample in samples if sample.mask is not None), None)
        if masked is not None:
            raise ValueError(f"{masked.image}: this set is for images without masks")
        self.class_names = list(class_names)
        super().__init__(samples, preprocessing, augmentation, seed, training=training)
        self.classes = np.array([self.class_names.index(s.category) for s in self.samples], np.int64)
        if len(self.images) > 1 and (self.images == self.images[:1]).all():
            raise UserError(
                f"{self.samples[0].image.parent}: all {len(self.images)} images are the same; "
                "there is nothing to learn, bring different ones"
            )
        if flips:
            self._double()

    def __getitem__(self, index: SampleIndex | int) -> Item:
        item = super().__getitem__(index)
        return {**item, "class": int(self.classes[item["sample"]])}

    def with_flips(self) -> ImageDataset:
        """A copy that holds each image's left-right flip too, as the training set with ``flips`` does."""
        doubled = copy.copy(self)
        doubled._double()
        return doubled

    def counts(self) -> dict[str, int]:
        """The number of images of each class."""
        counted = Counter(self.classes.tolist())
        return {name: counted[index] for index, name in enumerate(self.class_names)}

    def _double(self) -> None:
        self.images = np.concatenate([self.images, self.images[..., ::-1]])  # (2 N, 1, S, S)
        self.classes = np.concatenate([self.classes, self.classes])
        self.samples = [*self.samples, *self.samples]
        self.items = [{"image": torch.from_numpy(image)} for image in self.images]


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

    An int index gives the slice as it is, a `SampleIndex` the augmented slice of that epoch. A loader gets
    whole batches from `__getitems__`, ready to use: give it ``collate_fn=dataset.collate``.

    Args:
        pairs: the volumes, converted.
        label_set: the classes; None where the condition is an image.
        min_pixels: see `common.data.slice_cache.selected_slices`.
        every: see there.
        preprocessing: MONAI dictionary transforms of each slice, after it is read.
        augmentation: further, random transforms of a training set.
        seed: the run's seed, for the random transforms.
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
        pairs: Sequence[CachedPair],
        label_set: LabelSet | None,
        min_pixels: int = 1,
        every: int = 1,
        augmentation: Transforms = None,
        seed: int = 0,
        coarse: float = 0.0,
        preprocessing: Transforms = None,
    ) -> None:
        classes = () if label_set is None else label_set.classes
        self.pairs, self.seed, self.coarse = list(pairs), seed, _share(coarse)
        self.preprocessing = flatten_transforms(preprocessing)
        self.augment(augmentation)
        self._slices = selected_slices(self.pairs, min_pixels, every, classes)  # (N, 2): pair, slice
        self.dropped = sum(pair.image.depth for pair in self.pairs) - len(self._slices)
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

    def augment(self, augmentation: Transforms) -> None:
        """Sets the random transforms; None for none."""
        self._transforms = ReplayTransforms(
            [*self.preprocessing, *flatten_transforms(augmentation)], self.seed
        )

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        return first_of(self.__getitems__([visit]))

    def __getitems__(self, visits: Sequence[SampleIndex | int]) -> dict[str, Any]:
        """A batch: ``image`` and ``label`` float32 (B, 1, S, S), ``sample`` int64 (B,).

        Where none is a draw, also the places in the noise, see `common.data.replay.noise_coordinates`.
        """
        shape = (len(visits), 1, self.size, self.size)
        image, label = np.empty(
            (2, *shape), np.float32
        )  # in one, which the allocator keeps for the next batch
        samples = [visit.index if isinstance(visit, SampleIndex) else int(visit) for visit in visits]
        for row, (visit, sample) in enumerate(zip(visits, samples, strict=True)):
            drawn = visit if isinstance(visit, SampleIndex) else None
            self._read_image(sample, image[row, 0])
            self._read_label(sample, label[row, 0], merged=drawn is not None and self._is_coarse(drawn))
        batch = {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}
        if self._transforms:
            batch = self._transformed(batch, visits)
        noise = {} if any(isinstance(visit, SampleIndex) for visit in visits) else self._noise_places(samples)
        return {**batch, "sample": torch.tensor(samples), **noise}

    def _transformed(
        self, batch: Mapping[str, torch.Tensor], visits: Sequence[SampleIndex | int]
    ) -> dict[str, Any]:
        """The batch with each row through the transforms."""
        rows = [
            self._transforms({key: values[row] for key, values in batch.items()}, visit)
            for row, visit in enumerate(visits)
        ]
        return {str(key): torch.stack([row[key] for row in rows]) for key in rows[0]}

    def _noise_places(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        coordinates = []
        for number, slice_ in self._slices[list(numbers)].tolist():
            pair = self.pairs[number]
            mm = slice_ * pair.label.slice_mm if pair.is_volume else math.nan
            coordinates.append(noise_coordinates(pair.sample.name, mm))
        return {name: torch.tensor([entry[name] for entry in coordinates]) for name in noise_coordinates("")}

    @staticmethod
    def collate(batch: dict[str, Any]) -> dict[str, Any]:
        """For a loader's ``collate_fn``: what `__getitems__` gives is a batch already."""
        return batch

    @property
    def images(self) -> np.ndarray:
        """All images, float32 (N, 1, S, S) in [-1, 1]; read again at each call."""
        if self.preprocessing:
            return np.stack([self[index]["image"].numpy() for index in range(len(self))])
        images = np.empty((len(self), 1, self.size, self.size), np.float32)
        for index in range(len(self)):
            self._read_image(index, images[index, 0])
        return images

    @property
    def labels(self) -> np.ndarray:
        """All labels, float32 (N, 1, S, S); read again at each call."""
        if self.preprocessing:
            return np.stack([self[index]["label"].numpy() for index in range(len(self))])
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
        indices = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        part = copy.copy(self)
        part._slices, part._reader, part._codes = self._slices[indices], SliceReader(), self._codes.copy()
        part.samples = [self.samples[index] for index in indices]
        return part

    def volumes(self, slices: np.ndarray) -> Iterator[tuple[CachedPair, np.ndarray]]:
        """The way back: slices (N, 1, S, S) in [-1, 1], one for each of these, volume by volume.

        Yields:
            the pair and its volume (H, W, D) in display order, float32 in HU or the file's own values; slices
            that the filters took are at the lower end.
        """
        for number, pair in enumerate(self.pairs):
            mine = np.flatnonzero(self._slices[:, 0] == number)
            if not len(mine):
                continue
            stack = np.zeros((pair.image.depth, self.size, self.size), np.float32)
            stack[self._slices[mine, 1]] = from_network(slices[mine, 0])
            lower, upper = pair.image.lower, pair.image.upper
            yield (
                pair,
                pair.image.to_source(stack * np.float32(upper - lower) + np.float32(lower), fill=lower),
            )

    def _listed(self) -> list[Sample]:
        pairs = ((self.pairs[number], int(slice_index)) for number, slice_index in self._slices)
        return [replace(pair.sample, index=n) if pair.is_volume else pair.sample for pair, n in pairs]

    def _read_image(self, index: int, out: np.ndarray) -> None:
        number, slice_index = self._slices[index]
        self._reader.image(self.pairs[number].image, int(slice_index), out=out)
        _network_range(out)

    def _read_label(self, index: int, out: np.ndarray, merged: bool = False) -> None:
        number, slice_index = self._slices[index]
        lookup = (self._merged if merged else self._lookups)[number]
        if lookup is None:
            self._reader.image(self.pairs[number].label, int(slice_index), out=out)
            _network_range(out)
            return
        self._reader.label(self.pairs[number].label, int(slice_index), out=self._codes)
        if lookup.same:
            np.copyto(out, self._codes)
        else:
            np.take(lookup.table, self._codes, out=out, mode="clip")

    def _is_coarse(self, draw: SampleIndex) -> bool:
        if self.coarse == 0.0:
            return False
        return bool(make_rng(self.seed, "coarse", draw.epoch, draw.index).random() < self.coarse)


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


class UnpairedDataset(Dataset[dict[str, Any]]):
    """Each item of one set beside one of the other, as unpaired translation takes them (Zhu et al. 2017).

    An epoch visits every item of the longer set once. In training the other set's item is drawn anew for each
    visit, from (seed, epoch, number) alone, so that batches do not depend on workers or on where a run was
    resumed. Without a draw (a plain number, as in validation) item k of the shorter set is number k, counted
    round.

    Args:
        first, second: items are mappings with entries of different names, but for ``sample``: that is the
            number of the visit.
        seed: the run's seed.
        augmentation: random transforms of the joined item, for a `SampleIndex`.
    Raises:
        UserError: one of them is empty.
    """

    def __init__(self, first: Items, second: Items, seed: int = 0, augmentation: Transforms = None) -> None:
        if not len(first) or not len(second):
            raise UserError(f"{len(first)} and {len(second)} images: both sides need at least one")
        self.first, self.second, self.seed = first, second, seed
        self.augmentation = ReplayTransforms(augmentation, seed)

    def __len__(self) -> int:
        return max(len(self.first), len(self.second))

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        places = self.places(visit)
        items = (side[place] for side, place in zip((self.first, self.second), places, strict=True))
        number = visit.index if isinstance(visit, SampleIndex) else int(visit)
        return self.augmentation({**next(items), **next(items), "sample": number}, visit)

    def places(self, visit: SampleIndex | int) -> tuple[int, int]:
        """Which items of the first and the second set a visit shows.

        Raises:
            IndexError: a number beyond the end.
        """
        lengths = len(self.first), len(self.second)
        number = visit.index if isinstance(visit, SampleIndex) else int(visit)
        if number >= len(self):
            raise IndexError(number)
        if not isinstance(visit, SampleIndex):
            return number % lengths[0], number % lengths[1]
        partner = int(make_rng(self.seed, "partner", visit.epoch, number).integers(min(lengths)))
        return (number, partner) if lengths[0] >= lengths[1] else (partner, number)


IMAGES_CHECKED = 48
"""Items of a set that are looked at, evenly spaced."""
LEAST_RANGE = 0.25
"""Share of [-1, 1] from the darkest to the brightest thousandth of the pixels; real sets use nearly all."""
BRIGHT_BORDER, DARKER = 0.4, 0.6
"""Median border of inverted slices, in [-1, 1], and how much darker the middle of them is."""
INVERTED_SHARE = 0.8
"""Share of images with such a border; of figures cut from publications a fifth has one."""


def warn_of_gray_values(dataset: Items, where: Path) -> None:
    """Warns, in one line, of a set whose images are nearly one gray, or seem to be inverted.

    Args:
        dataset: a training set, as its network sees it.
        where: the set's folder, for the message.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(IMAGES_CHECKED, len(dataset))).astype(int))
    images = [np.asarray(dataset[int(index)]["image"], np.float32)[0] for index in indices]
    if not images:
        return
    darkest, brightest = np.quantile(np.concatenate([image.ravel() for image in images]), (0.001, 0.999))
    if brightest - darkest < 2 * LEAST_RANGE:
        logger.warning(
            f"{where}: its images use {(brightest - darkest) / 2:.0%} of the range from black to white; see "
            "--window for what is black and white in HU, --hu_offset for values that are not HU, "
            "--source_range for pictures"
        )
    elif np.mean([_seems_inverted(image) for image in images]) > INVERTED_SHARE:
        logger.warning(
            f"{where}: its images are white around a dark middle, as if inverted; air is black in a CT: give "
            "--source_range with the two numbers the other way round, or invert the files"
        )


def _seems_inverted(image: np.ndarray) -> bool:
    height, width = image.shape
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    middle = image[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    brighter = float(np.median(border))
    return brighter > BRIGHT_BORDER and float(np.median(middle)) < brighter - DARKER

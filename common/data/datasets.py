"""Image and mask pairs in memory, as the network wants them."""

from __future__ import annotations

import copy
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.image_io import for_each, read_pair
from common.data.intensity import Window, from_network, to_network, to_unit, window_by_name
from common.data.intensity_standardization import Standardiser
from common.data.labels import LabelSet
from common.data.sampler import SampleIndex
from common.data.samples import Sample
from common.data.slice_cache import CachedPair, CachedVolume, SliceReader, selected_slices
from common.data.slice_noise import noise_coordinates
from common.data.transforms import (
    Augmentation,
    AugmentationDraw,
    apply_to_image,
    apply_to_mask,
    check_fit_name,
    fit_mask,
    fit_square,
)
from common.errors import UserError
from common.rng import make_rng

logger = logging.getLogger(__name__)
EMPTY_MASKS = ("keep", "drop")


class PairDataset(Dataset[dict[str, Any]]):
    """CT slices in [-1, 1] with lesion masks {0, 1}, both (1, S, S).

    Everything is read, checked, resized and standardised once, here, in the main process; workers share it.
    An int index gives the pair as it is, a `SampleIndex` gives the augmented pair of that visit.

    Args:
        samples: what to load.
        image_size: S in pixels.
        window: HU window, a preset's name or [lower, upper].
        standardiser: brings 8-bit slices of different windows to a common look.
        fit_standardiser: learn it from these samples first (the training split).
        augment: what is drawn for each visit; None for nothing.
        seed: the run's seed, for the augmentation.
        empty_masks: ``keep`` or ``drop`` slices with fewer than ``min_lesion_pixels`` lesion pixels at S x S.
        min_lesion_pixels: see ``empty_masks``.
        source_range: black and white of files that are not HU; None for their type's full range.
        fit: how slices become square, see `common.data.transforms.fit_square`.

    Attributes:
        samples: the samples kept, in order.
        images: float32 (N, 1, S, S) in [-1, 1].
        labels: float32 (N, 1, S, S) in {0, 1}; None for unconditional sets.
        dropped: number of slices dropped for their empty mask.
        nominal_hu: whether some of the values are not calibrated HU.
    Raises:
        UserError: a bad file, or nothing left.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        window: str | Window | Sequence[float] = "lung",
        standardiser: Standardiser | None = None,
        fit_standardiser: bool = False,
        augment: Augmentation | None = None,
        seed: int = 0,
        empty_masks: str = "keep",
        min_lesion_pixels: int = 1,
        source_range: Sequence[float] | None = None,
        fit: str = "pad",
    ) -> None:
        self.fit = check_fit_name(fit)
        if empty_masks not in EMPTY_MASKS:
            raise UserError(f"empty_masks {empty_masks!r} is unknown; choose keep or drop")
        self.image_size, self.window = int(image_size), window_by_name(window)
        self.augment, self.seed, self.source_range = augment, seed, source_range
        least = min_lesion_pixels if empty_masks == "drop" else 0
        loaded = for_each(samples, self._load, "reading")
        kept = [index for index, pair in enumerate(loaded) if _lesion(pair) >= least]
        self.dropped = len(loaded) - len(kept)
        if not kept:
            where = samples[0].image.parent if samples else "the data set"
            raise UserError(
                f"{where}: no slices left to use ({self.dropped} with an empty mask); set empty_masks to keep"
            )
        self.samples = [samples[index] for index in kept]
        units, masks, is_hu = zip(*(loaded[index] for index in kept), strict=True)
        self.nominal_hu = not all(is_hu)
        looks = self._standardised(units, is_hu, standardiser, fit_standardiser)
        self.images = to_network(np.stack(looks)[:, None])  # (N, 1, S, S)
        self.labels = _stacked(masks)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        index = visit.index if isinstance(visit, SampleIndex) else int(visit)
        image = self.images[index]
        label = None if self.labels is None else self.labels[index]
        if self.augment is not None and isinstance(visit, SampleIndex):
            draw = self.augment.draw(make_rng(self.seed, "augmentation", visit.epoch, visit.index))
            image, label = _augmented(image, label, draw)
        item: dict[str, Any] = {"image": torch.from_numpy(image), "sample": index}
        if label is not None:
            item["label"] = torch.from_numpy(label)
            if not isinstance(visit, SampleIndex):  # in training noise is drawn anew for each visit
                item |= noise_coordinates(self.samples[index].name)
        return item

    def _load(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Image in [0, 1] and mask {0, 1}, both (S, S), and whether the values are HU."""
        pixels, mask = read_pair(sample)
        source = pixels.source_range if self.source_range is None else tuple(self.source_range)
        unit = to_unit(pixels.values, self.window, pixels.is_hu, (float(source[0]), float(source[1])))
        small = None if mask is None else fit_mask(mask, self.image_size, self.fit)
        return fit_square(unit, self.image_size, self.fit), small, pixels.is_hu

    def _standardised(
        self, units: Sequence[np.ndarray], is_hu: Sequence[bool], standardiser: Standardiser | None, fit: bool
    ) -> Sequence[np.ndarray]:
        """Scan by scan in the common look; HU values are left alone."""
        if standardiser is None:
            return units
        scans: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(self.samples):
            if not is_hu[index]:
                scans[sample.patient].append(index)
        if fit:
            standardiser.fit({patient: [units[index] for index in scan] for patient, scan in scans.items()})
        result = list(units)
        for scan in scans.values():
            for index, image in zip(
                scan, standardiser.apply_scan([units[index] for index in scan]), strict=True
            ):
                result[index] = image
        return result


def _augmented(
    image: np.ndarray, label: np.ndarray | None, draw: AugmentationDraw
) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and label (1, S, S) of one visit."""
    moved = to_network(apply_to_image(from_network(image[0]), draw))[None]
    return moved, None if label is None else apply_to_mask(label[0], draw)[None]


def _lesion(pair: tuple[np.ndarray, np.ndarray | None, bool]) -> float:
    """Lesion pixels of a loaded pair; without a mask there is nothing to be empty."""
    return float("inf") if pair[1] is None else float(pair[1].sum())


def _stacked(masks: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """float32 (N, 1, S, S), or None where a slice has no mask."""
    present = [mask for mask in masks if mask is not None]
    return np.stack(present)[:, None].astype(np.float32) if len(present) == len(masks) else None


class ImageDataset(PairDataset):
    """CT slices (1, S, S) in [-1, 1], each with the index of its class.

    As `common.data.datasets.PairDataset`, without masks. Items hold ``image``, ``class`` and ``sample``.

    Args:
        samples: what to load.
        class_names: the classes; an item's ``class`` is its category's place among them.
        image_size: S in pixels.
        fit: how slices become square, see `common.data.transforms.fit_square`.
        flips: double the set: image i + N is the left-right flip of image i, as paper C's training set.
        window, standardiser, fit_standardiser, augment, seed, source_range: as there.

    Attributes:
        samples: one for each image, flips included.
        images: float32 (N, 1, S, S) in [-1, 1], flips included.
        classes: int64 (N,).
    Raises:
        UserError: a bad file, no images, or all of them the same.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        image_size: int,
        fit: str = "pad",
        flips: bool = False,
        window: str | Window | Sequence[float] = "lung",
        standardiser: Standardiser | None = None,
        fit_standardiser: bool = False,
        augment: Augmentation | None = None,
        seed: int = 0,
        source_range: Sequence[float] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        super().__init__(
            [_unmasked(sample) for sample in samples],
            image_size,
            window,
            standardiser,
            fit_standardiser,
            augment,
            seed,
            source_range=source_range,
            fit=fit,
        )
        places = [self.class_names.index(sample.category) for sample in self.samples]
        self.classes = np.array(places, np.int64)
        self._check_variety()
        if flips:
            self._double()

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        item = super().__getitem__(visit)
        return {**item, "class": int(self.classes[item["sample"]])}

    def with_flips(self) -> ImageDataset:
        """A copy that holds each image's left-right flip too: what such a training set is compared with."""
        doubled = copy.copy(self)
        doubled._double()
        return doubled

    def counts(self) -> dict[str, int]:
        """The number of images of each class."""
        counted = Counter(self.classes.tolist())
        return {name: counted[index] for index, name in enumerate(self.class_names)}

    def _load(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None, bool]:
        pixels = read_pair(sample).pixels
        source = pixels.source_range if self.source_range is None else tuple(self.source_range)
        unit = to_unit(pixels.values, self.window, pixels.is_hu, (float(source[0]), float(source[1])))
        return fit_square(unit, self.image_size, self.fit), None, pixels.is_hu

    def _double(self) -> None:
        self.images = np.concatenate([self.images, self.images[..., ::-1]])  # (2 N, 1, S, S)
        self.classes = np.concatenate([self.classes, self.classes])
        self.samples = [*self.samples, *self.samples]

    def _check_variety(self) -> None:
        if len(self.images) > 1 and (self.images == self.images[:1]).all():
            raise UserError(
                f"{self.samples[0].image.parent}: all {len(self.images)} images are the same; "
                "there is nothing to learn, bring different ones"
            )


def _unmasked(sample: Sample) -> Sample:
    if sample.mask is not None:
        raise ValueError(f"{sample.image}: this set is for images without masks")
    return sample


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
        pairs: Sequence[CachedPair],
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

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        return first_of(self.__getitems__([visit]))

    def __getitems__(self, visits: Sequence[SampleIndex | int]) -> dict[str, Any]:
        """A batch: ``image`` and ``label`` float32 (B, 1, S, S), ``sample`` int64 (B,).

        Where none is a draw, also the places in the noise, see `common.data.slice_noise.noise_coordinates`.
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
            if drawn is not None and self.augment is not None:
                draw = self.augment.draw(make_rng(self.seed, "augmentation", drawn.epoch, drawn.index))
                self._move(image[row, 0], label[row, 0], draw)
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "sample": torch.tensor(samples),
            **(
                {} if any(isinstance(visit, SampleIndex) for visit in visits) else self._noise_places(samples)
            ),
        }

    def _noise_places(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        places = []
        for number, slice_ in self._places[list(numbers)].tolist():
            pair = self.pairs[number]
            mm = slice_ * pair.label.slice_mm if pair.is_volume else math.nan
            places.append(noise_coordinates(pair.sample.name, mm))
        return {name: torch.tensor([place[name] for place in places]) for name in noise_coordinates("")}

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

    def volume_of(self, index: int) -> tuple[CachedVolume, int]:
        """The image volume of slice ``index``, and the slice's number in it along the cut axis."""
        number, place = self._places[index]
        return self.pairs[number].image, int(place)

    def window_of(self, index: int) -> tuple[float, float]:
        """What -1 and 1 stand for in slice ``index``: HU, or the file's own values."""
        volume, _ = self.volume_of(index)
        return volume.lower, volume.upper

    def volumes(self, slices: np.ndarray) -> Iterator[tuple[CachedPair, np.ndarray]]:
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

    def _is_coarse(self, draw: SampleIndex) -> bool:
        if self.coarse == 0.0:
            return False
        return bool(make_rng(self.seed, "coarse", draw.epoch, draw.index).random() < self.coarse)

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


class Items(Protocol):
    """Records by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, visit: Any) -> Mapping[str, Any]: ...


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
    Raises:
        UserError: one of them is empty.
    """

    def __init__(self, first: Items, second: Items, seed: int = 0) -> None:
        if not len(first) or not len(second):
            raise UserError(f"{len(first)} and {len(second)} images: both sides need at least one")
        self.first, self.second, self.seed = first, second, seed

    def __len__(self) -> int:
        return max(len(self.first), len(self.second))

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        places = self.places(visit)
        items = (side[place] for side, place in zip((self.first, self.second), places, strict=True))
        number = visit.index if isinstance(visit, SampleIndex) else int(visit)
        return {**next(items), **next(items), "sample": number}

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

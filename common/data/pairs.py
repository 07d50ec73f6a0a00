"""Image and mask pairs in memory, as the network wants them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.augment import Augmentation, AugmentationDraw, apply_to_image, apply_to_mask
from common.data.checks import for_each, read_pair
from common.data.intensity import Window, from_network, to_network, to_unit, window_by_name
from common.data.noise import noise_place
from common.data.resizing import check_fit_name, fit_mask, fit_square
from common.data.samples import Sample
from common.data.sampling import Draw
from common.data.standardise import Standardiser
from common.errors import UserError
from common.random import generator

logger = logging.getLogger(__name__)
EMPTY_MASKS = ("keep", "drop")


class PairDataset(Dataset[dict[str, Any]]):
    """CT slices in [-1, 1] with lesion masks {0, 1}, both (1, S, S).

    Everything is read, checked, resized and standardised once, here, in the main process; workers share it.
    An int index gives the pair as it is, a `Draw` gives the augmented pair of that visit.

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
        fit: how slices become square, see `common.data.resizing.fit_square`.

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

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        index = visit.sample if isinstance(visit, Draw) else int(visit)
        image = self.images[index]
        label = None if self.labels is None else self.labels[index]
        if self.augment is not None and isinstance(visit, Draw):
            draw = self.augment.draw(generator(self.seed, "augmentation", visit.epoch, visit.sample))
            image, label = _augmented(image, label, draw)
        item: dict[str, Any] = {"image": torch.from_numpy(image), "sample": index}
        if label is not None:
            item["label"] = torch.from_numpy(label)
            if not isinstance(visit, Draw):  # in training noise is drawn anew for each visit
                item |= noise_place(self.samples[index].name)
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

"""Slices of scans with nodules, as patches for a segmenter: drawn so that rare, small nodules are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from common.data.augment import Augmentation, apply_to_image, apply_to_mask
from common.data.checks import for_each
from common.data.intensity import Window, to_network, to_unit, window_by_name
from common.data.nodule_layouts import NoduleSample
from common.data.nodule_scan import read_nodule_scan
from common.data.samples import Sample
from common.data.sampling import Draw
from common.errors import UserError
from common.random import generator

LEAST_NORMALS = 4
"""A scan's slices without nodules are chosen as if it had so many with, where it has fewer."""


class NoduleSlice(NamedTuple):
    """HU int16 (H, W), mask uint8 {0, 1} (H, W) and the record, its ``index`` being the slice."""

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    sample: Sample


class Balance(NamedTuple):
    """What share of the slices holds no nodule, and what share of the visits to one that does shows it.

    Args:
        normal_share: 0 to below 1; fewer where a set has fewer.
        foreground: 0 to 1; the other visits go anywhere in the slice.
    """

    normal_share: float = 0.3
    foreground: float = 0.7

    def checked(self) -> Balance:
        """Itself.

        Raises:
            UserError: a share out of range.
        """
        if not 0 <= self.normal_share < 1:
            raise UserError(f"normal_share {self.normal_share}: give a share from 0 to below 1")
        if not 0 <= self.foreground <= 1:
            raise UserError(f"foreground {self.foreground}: give a share from 0 to 1")
        return self

    def normals(self, positives: int) -> int:
        """How many slices without nodules go with so many that have some."""
        return round(positives * self.normal_share / (1 - self.normal_share))


class NoduleSlices(Dataset[dict[str, Any]]):
    """Patches (1, S, S) of slices in [-1, 1] with nodule masks {0, 1}.

    All slices with nodules are kept in memory as they lie in the file, and a seeded choice of those without:
    of those with an excluded finding only where a scan has no others.
    A `Draw` gives the patch of that visit, augmented; an int index always the same patch, with the nodule in
    it where the slice has one. Slices smaller than S are surrounded by the window's lower end.

    Args:
        samples: the scans' records, see `common.data.nodule_layouts`.
        image_size: S in pixels of the file.
        window: HU window, a preset's name or [lower, upper].
        balance: which slices and patches are seen how often.
        augment: what is drawn for each visit beside the place; None for nothing.
        seed: of all choices.

    Attributes:
        samples: one for each slice.
        dropped: slices without nodules that were not chosen.
        nominal_hu: whether some of the values are not calibrated HU.
    Raises:
        UserError: a bad scan, or no slice with a nodule.
    """

    def __init__(
        self,
        samples: Sequence[NoduleSample],
        image_size: int,
        window: str | Window | Sequence[float] = "lung",
        balance: Balance | Sequence[float] = (0.3, 0.7),
        augment: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.image_size, self.window = int(image_size), window_by_name(window)
        self.balance, self.augment, self.seed = Balance(*balance).checked(), augment, seed
        self.dropped, self.nominal_hu = 0, False
        scans = for_each(samples, self._slices, "reading")
        self.slices = self._chosen([slice_ for scan in scans for slice_ in scan])
        self.samples = [slice_.sample for slice_ in self.slices]
        self._places = [np.argwhere(slice_.mask) for slice_ in self.slices]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        index = visit.sample if isinstance(visit, Draw) else int(visit)
        hu, mask, _ = self.slices[index]
        corner = self._corner(visit)
        unit = _cut(to_unit(hu, self.window, is_hu=True), corner, self.image_size)
        label = _cut(mask, corner, self.image_size)
        if self.augment is not None and isinstance(visit, Draw):
            draw = self.augment.draw(generator(self.seed, "augmentation", visit.epoch, visit.sample))
            unit, label = apply_to_image(unit, draw), apply_to_mask(label, draw)
        return {
            "image": torch.from_numpy(to_network(unit)[None]),
            "label": torch.from_numpy(label[None].astype(np.float32)),
            "sample": index,
        }

    def _slices(self, sample: Sample) -> list[NoduleSlice]:
        """The scan's slices with nodules, and as many others as could be wanted of it."""
        scan = read_nodule_scan(cast(NoduleSample, sample), self.window)
        self.nominal_hu |= scan.nominal_hu
        has = np.asarray(scan.mask.any(axis=(1, 2)))
        most = self.balance.normals(max(LEAST_NORMALS, int(has.sum())))
        clean = ~has & ~scan.excluded_mask().any(axis=(1, 2)) if scan.excluded else ~has
        places = np.flatnonzero(clean if clean.any() else ~has)
        normals = _drawn(places, most, generator(self.seed, "normal slices", sample.name))
        self.dropped += int((~has).sum()) - len(normals)
        flat = len(has) == 1
        return [
            NoduleSlice(
                scan.hu[z].copy(),
                (scan.mask[z] > 0).astype(np.uint8),
                replace(sample, index=None if flat else int(z)),
            )
            for z in sorted([*np.flatnonzero(has), *normals])
        ]

    def _chosen(self, slices: Sequence[NoduleSlice]) -> list[NoduleSlice]:
        """All slices with nodules, and of the others so many that they have their share."""
        has = np.array([slice_.mask.any() for slice_ in slices], bool)
        if not has.any():
            where = slices[0].sample.image.parent if slices else "the data set"
            raise UserError(f"{where}: no slice has a nodule; bring scans with nodules to learn from")
        most = self.balance.normals(int(has.sum()))
        normals = _drawn(np.flatnonzero(~has), most, generator(self.seed, "normal slices"))
        self.dropped += int((~has).sum()) - len(normals)
        return [slices[place] for place in sorted([*np.flatnonzero(has), *normals])]

    def _corner(self, visit: Draw | int) -> tuple[int, int]:
        """First row and column of a visit's patch, perhaps negative in slices smaller than the patch."""
        index = visit.sample if isinstance(visit, Draw) else int(visit)
        keys = ("patch", visit.epoch, index) if isinstance(visit, Draw) else ("fixed patch", index)
        random = generator(self.seed, *keys)
        share, row, column, which = random.random(4)
        places, size = self._places[index], self.image_size
        shape = np.array(self.slices[index].mask.shape)
        if len(places) and (share < self.balance.foreground or not isinstance(visit, Draw)):
            centre = places[int(which * len(places))] + (np.array([row, column]) - 0.5) * size / 2
            corner = np.rint(centre - size / 2).astype(int)
        else:
            corner = np.floor(np.array([row, column]) * (np.maximum(shape - size, 0) + 1)).astype(int)
        first, last = np.minimum(shape - size, 0) // 2, np.maximum(shape - size, 0)
        corner = np.where(shape <= size, first, np.clip(corner, 0, last))
        return int(corner[0]), int(corner[1])


def _drawn(places: NDArray[np.intp], most: int, random: np.random.Generator) -> NDArray[np.intp]:
    """At most so many of the places, in order."""
    return places if len(places) <= most else np.sort(random.choice(places, most, replace=False))


def _cut(array: np.ndarray, corner: tuple[int, int], size: int) -> np.ndarray:
    """The (size, size) part from ``corner`` on; 0 where the array ends."""
    out = np.zeros((size, size), array.dtype)
    row, column = corner
    inside = array[max(0, row) : row + size, max(0, column) : column + size]
    top, left = max(0, -row), max(0, -column)
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out

"""Patches of slices with and without nodules, for training a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.transforms import ScaleIntensityRanged
from numpy.typing import NDArray
from torch.utils.data import Dataset

from common.data.image_io import for_each
from common.data.intensity import Window, window_by_name
from common.data.loaders import SampleIndex
from common.data.nodules import NoduleSample, read_nodule_scan
from common.data.replay import ReplayTransforms, Transforms, flatten_transforms
from common.data.samples import Sample
from common.data.transforms import WindowHUd
from common.errors import UserError
from common.rng import make_rng

LEAST_NORMALS = 4
"""Slices with nodules that each scan counts as having at least, when slices without are chosen."""


class NoduleSlice(NamedTuple):
    """HU int16 (H, W), mask uint8 {0, 1} (H, W) and the record with the slice as ``index``."""

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    sample: Sample


@dataclass(frozen=True)
class Balance:
    """The share of slices without nodules, and of patches with the nodule in them.

    Args:
        normal_share: share of slices without nodules, 0 to below 1; fewer if the data set has fewer.
        foreground: share of patches of a slice with nodules that show one; the others lie anywhere.
    Raises:
        UserError: a share out of range.
    """

    normal_share: float = 0.3
    foreground: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.normal_share < 1:
            raise UserError(f"normal_share {self.normal_share}: give a share from 0 to below 1")
        if not 0 <= self.foreground <= 1:
            raise UserError(f"foreground {self.foreground}: give a share from 0 to 1")

    def normals(self, positives: int) -> int:
        """Returns the number of slices without nodules for a number of slices with some."""
        return round(positives * self.normal_share / (1 - self.normal_share))


class NoduleSliceDataset(Dataset[dict[str, Any]]):
    """Patches (1, S, S) of slices in [-1, 1] with nodule masks {0, 1}.

    All slices with nodules are kept in memory, and a random choice of those without; slices with excluded
    findings are chosen only if a scan has no others. A `SampleIndex` gives a random patch, augmented; an int
    always the same patch, with the nodule if the slice has one. Slices smaller than S are padded with the
    lower end of the window.

    Args:
        samples: from `find_nodule_scans`.
        image_size: S in pixels of the file.
        window: HU window, a preset's name or [lower, upper].
        balance: the two numbers of `Balance`.
        preprocessing: MONAI dictionary transforms of the patches, which are in HU; None for the window and
            [-1, 1].
        augmentation: further, random transforms of a training set's patches; None for none.
        seed: of all random choices.

    Attributes:
        samples: the record of each slice.
        dropped: number of slices without nodules that were not chosen.
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
        preprocessing: Transforms = None,
        augmentation: Transforms = None,
        seed: int = 0,
    ) -> None:
        self.image_size, self.window = int(image_size), window_by_name(window)
        self.balance = balance if isinstance(balance, Balance) else Balance(*balance)
        self.seed = seed
        if preprocessing is None:
            preprocessing = [WindowHUd("image", self.window), ScaleIntensityRanged("image", 0, 1, -1, 1)]
        self.preprocessing = flatten_transforms(preprocessing)
        self.augment(augmentation)
        self.dropped, self.nominal_hu = 0, False
        scans = for_each(samples, self._slices, "reading")
        self.slices = self._chosen([slice_ for scan in scans for slice_ in scan])
        self.samples = [slice_.sample for slice_ in self.slices]
        self._nodule_pixels = [np.argwhere(slice_.mask) for slice_ in self.slices]

    def augment(self, augmentation: Transforms) -> None:
        """Sets the random transforms; None for none."""
        steps = [*self.preprocessing, *flatten_transforms(augmentation)]
        self._transforms = ReplayTransforms(steps, self.seed)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        index = visit.index if isinstance(visit, SampleIndex) else int(visit)
        hu, mask, _ = self.slices[index]
        corner = self._corner(visit)
        patch = _cut(hu, corner, self.image_size, self.window.lower)
        label = _cut(mask, corner, self.image_size)
        item: dict[Any, Any] = {
            "image": torch.from_numpy(patch[None].astype(np.float32)),
            "label": torch.from_numpy(label[None].astype(np.float32)),
        }
        item = {**self._transforms(item, visit), "sample": index}
        return item

    def _slices(self, sample: Sample) -> list[NoduleSlice]:
        """Reads the slices of a scan with nodules, and as many others as may be needed."""
        scan = read_nodule_scan(cast(NoduleSample, sample), self.window)
        self.nominal_hu |= scan.nominal_hu
        has = np.asarray(scan.mask.any(axis=(1, 2)))
        most = self.balance.normals(max(LEAST_NORMALS, int(has.sum())))
        clean = ~has & ~scan.excluded_mask().any(axis=(1, 2)) if scan.has_excluded else ~has
        candidates = np.flatnonzero(clean if clean.any() else ~has)
        normals = _drawn(candidates, most, make_rng(self.seed, "normal slices", sample.name))
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
        """Chooses all slices with nodules, and the share of the others."""
        has = np.array([slice_.mask.any() for slice_ in slices], bool)
        if not has.any():
            where = slices[0].sample.image.parent if slices else "the data set"
            raise UserError(f"{where}: no slice has a nodule; bring scans with nodules to learn from")
        most = self.balance.normals(int(has.sum()))
        normals = _drawn(np.flatnonzero(~has), most, make_rng(self.seed, "normal slices"))
        self.dropped += int((~has).sum()) - len(normals)
        return [slices[place] for place in sorted([*np.flatnonzero(has), *normals])]

    def _corner(self, visit: SampleIndex | int) -> tuple[int, int]:
        """Returns first row and column of a patch, negative in slices smaller than the patch."""
        index = visit.index if isinstance(visit, SampleIndex) else int(visit)
        keys = ("patch", visit.epoch, index) if isinstance(visit, SampleIndex) else ("fixed patch", index)
        random = make_rng(self.seed, *keys)
        share, row, column, which = random.random(4)
        pixels, size = self._nodule_pixels[index], self.image_size
        shape = np.array(self.slices[index].mask.shape)
        if len(pixels) and (share < self.balance.foreground or not isinstance(visit, SampleIndex)):
            centre = pixels[int(which * len(pixels))] + (np.array([row, column]) - 0.5) * size / 2
            corner = np.rint(centre - size / 2).astype(int)
        else:
            corner = np.floor(np.array([row, column]) * (np.maximum(shape - size, 0) + 1)).astype(int)
        first, last = np.minimum(shape - size, 0) // 2, np.maximum(shape - size, 0)
        corner = np.where(shape <= size, first, np.clip(corner, 0, last))
        return int(corner[0]), int(corner[1])


def _drawn(indices: NDArray[np.intp], most: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Draws at most ``most`` of the indices, in order."""
    return indices if len(indices) <= most else np.sort(random.choice(indices, most, replace=False))


def _cut(array: np.ndarray, corner: tuple[int, int], size: int, fill: float = 0) -> np.ndarray:
    """Returns the (size, size) part from ``corner`` on, padded with ``fill``."""
    out = np.full((size, size), fill, array.dtype)
    row, column = corner
    inside = array[max(0, row) : row + size, max(0, column) : column + size]
    top, left = max(0, -row), max(0, -column)
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out

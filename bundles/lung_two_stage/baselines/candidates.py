"""Nodule candidates without training, bright blobs near air, and cubes around candidates as training data.

Blobs are maxima of the Laplacian of Gaussian over space and scale (Lindeberg, Feature detection with
automatic scale selection, IJCV 1998): the response of a bright ball of radius r is greatest at
sigma = r / sqrt(dimensions). scikit-image's ``blob_log`` knows no voxel spacing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window, window_by_name
from common.data.loaders import SampleIndex
from common.data.nodules import Nodule, NoduleSample, NoduleScan, find_nodule_scans, read_nodule_scan
from common.data.replay import ReplayTransforms, Transforms, flatten_transforms
from common.data.samples import is_volume
from common.data.splits import SplitData
from common.errors import UserError
from common.metrics.detection import Candidate
from common.rng import make_rng

RADII = (2.0, 3.0, 4.5, 6.5, 9.5, 14.0)
"""Radii of blobs in mm."""
AIR = -500
"""HU below which tissue is aerated."""
SURROUNDINGS = 15.0
"""Half the side in mm of the box around a blob that must hold some air."""
SOFT_TISSUE = 100.0
"""HU to which brighter tissue is clipped: bone would outshine nodules."""
JITTER = 4
"""Voxels by which a training cube may be shifted."""
FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of training, validation and test patients, as for segmentation."""
Points = Callable[[NoduleScan], NDArray[Any]]
"""Candidates of a scan: (N, 3) voxels (slice, row, column)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Blobs:
    """Blobs of a scan, by falling strength.

    Args:
        centres: (N, 3) voxel indices (slice, row, column).
        radii: (N,) mm.
        strengths: (N,) contrast in HU, comparable between scales.
    """

    centres: NDArray[np.int64]
    radii: NDArray[np.float64]
    strengths: NDArray[np.float64]


def find_blobs(
    hu: NDArray[np.int16],
    spacing: Sequence[float],
    least: float = 100.0,
    most: int = 200,
    air_share: float = 0.1,
) -> Blobs:
    """Finds bright blobs near air.

    Args:
        hu: (Z, H, W); a single slice is searched in its plane.
        spacing: mm between voxels.
        least: least strength in HU.
        most: blobs at most.
        air_share: least share of aerated voxels around a blob.

    Example:
        >>> hu = np.full((1, 64, 64), -850, np.int16)
        >>> hu[0, 28:37, 38:47] = 30  # 9 mm wide
        >>> find_blobs(hu, spacing=(1.0, 1.0, 1.0)).centres.tolist()
        [[0, 32, 42]]
    """
    tissue = np.minimum(hu, np.int16(SOFT_TISSUE)).astype(np.float32)
    strength, scale = _strongest(tissue, spacing)
    extents = [1 if length == 1 else 3 for length in hu.shape]
    peaks = (strength >= least) & (strength == ndimage.maximum_filter(strength, size=extents))
    sides = [1 + 2 * int(SURROUNDINGS / step) for step in spacing]
    aired = ndimage.uniform_filter((hu < AIR).astype(np.float32), sides, mode="nearest")
    centres = np.argwhere(peaks & (aired >= air_share))
    values = strength[tuple(centres.T)]
    order = np.argsort(-values, kind="stable")[:most]
    chosen = centres[order]
    sizes = np.asarray(RADII, np.float64)[scale[tuple(chosen.T)]]
    return Blobs(chosen, sizes, values[order].astype(np.float64))


def _strongest(
    tissue: NDArray[np.float32], spacing: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The greatest response of each voxel over the scales, and the index of the scale in `RADII`."""
    extended = [axis for axis, length in enumerate(tissue.shape) if length > 1]
    best, scale = np.full(tissue.shape, -np.inf, np.float32), np.zeros(tissue.shape, np.uint8)
    for number, radius in enumerate(RADII):
        sigma = radius / np.sqrt(len(extended))
        response = _response(tissue, spacing, extended, sigma)
        larger = response > best
        best[larger], scale[larger] = response[larger], number
    return best, scale


def _response(
    tissue: NDArray[np.float32], spacing: Sequence[float], extended: Sequence[int], sigma: float
) -> NDArray[np.float32]:
    """Minus the Laplacian of Gaussian at ``sigma`` mm, times sigma squared, which makes scales comparable."""
    total = np.zeros_like(tissue)
    widths = [sigma / spacing[axis] if axis in extended else 0.0 for axis in range(tissue.ndim)]
    for axis in extended:
        orders = [2 if other == axis else 0 for other in range(tissue.ndim)]
        total -= ndimage.gaussian_filter(tissue, widths, orders, mode="nearest", truncate=3.0) * np.float32(
            widths[axis] ** 2
        )
    return total


def merge_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Merges candidates greedily, by falling score: all whose distance is within the larger of the two radii.

    A merged candidate has the score and radius of the best and the mean of the centres, weighted by score.

    Args:
        candidates: of one scan, with scores of at least 0.
    """
    order = sorted(range(len(candidates)), key=lambda index: -candidates[index].score)
    points = np.array([candidate.position_mm for candidate in candidates]).reshape(-1, 3)
    radii = np.array([candidate.radius_mm for candidate in candidates])
    scores = np.array([candidate.score for candidate in candidates])
    free, merged = np.ones(len(candidates), bool), []
    for index in order:
        if not free[index]:
            continue
        near = np.linalg.norm(points - points[index], axis=1) <= np.maximum(radii, radii[index])
        near &= free
        free &= ~near
        centre = np.average(points[near], axis=0, weights=scores[near] + 1e-9)  # all may score 0
        x, y, z = (float(value) for value in centre)
        merged.append(replace(candidates[index], position_mm=(x, y, z)))
    return merged


@dataclass(frozen=True)
class CubeShape:
    """The shape of cubes.

    Args:
        size: voxels of a side in the plane; a multiple of 8.
        side_mm: length of a side.
        depth: slices; 1 for patches of the plane.
        step_mm: distance of slices.
    Raises:
        UserError: a size that is no multiple of 8, or lengths that are not above 0.

    Example:
        >>> CubeShape(size=32, side_mm=16.0, depth=8).steps
        (2.0, 0.5, 0.5)
    """

    size: int = 32
    side_mm: float = 32.0
    depth: int = 1
    step_mm: float = 2.0

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 8 or self.depth < 1 or min(self.side_mm, self.step_mm) <= 0:
            raise UserError(
                f"cubes of {self.depth} x {self.size} x {self.size} voxels, {self.side_mm:g} mm: "
                "give a size that is a multiple of 8, a depth of at least 1 and lengths above 0"
            )

    @property
    def steps(self) -> tuple[float, float, float]:
        """Distance of voxels along each axis in mm."""
        in_plane = self.side_mm / self.size
        return self.step_mm, in_plane, in_plane


def cut_cubes(
    scan: NoduleScan, centres: NDArray[np.floating], shape: CubeShape, margin: int = 0
) -> NDArray[np.int16]:
    """Cuts cubes (N, D, S, S) of HU around points, by linear interpolation; edges are continued outside.

    Args:
        centres: (N, 3) voxels (slice, row, column).
        shape: D and S without ``margin``.
        margin: further voxels on each side in the plane, for shifted crops.
    """
    lengths = (shape.depth, shape.size + 2 * margin, shape.size + 2 * margin)
    offsets = [
        (np.arange(length) - (length - 1) / 2) * step / spacing
        for length, step, spacing in zip(lengths, shape.steps, scan.spacing, strict=True)
    ]
    points = np.asarray(centres, np.float64).reshape(-1, 3)
    cubes = np.empty((len(points), *lengths), np.int16)
    for cube, point in zip(cubes, points, strict=True):
        axes = [centre + offset for centre, offset in zip(point, offsets, strict=True)]
        cube[:] = _interpolated(scan.hu, axes)
    return cubes


def _interpolated(hu: NDArray[np.int16], axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """The volume at the grid of three axes of coordinates."""
    first = [int(np.clip(np.floor(axis[0]), 0, n - 1)) for axis, n in zip(axes, hu.shape, strict=True)]
    last = [int(np.clip(np.ceil(axis[-1]), 0, n - 1)) for axis, n in zip(axes, hu.shape, strict=True)]
    box = hu[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))].astype(np.float32)
    grid = np.meshgrid(*(axis - a for axis, a in zip(axes, first, strict=True)), indexing="ij")
    return np.asarray(ndimage.map_coordinates(box, grid, order=1, mode="nearest"), np.float32)


class CubeDataset(Dataset[dict[str, Any]]):
    """Cubes around candidates and nodules of scans.

    An epoch of training has each cube with a nodule and as many random cubes without, shifted and augmented;
    otherwise every cube comes once. Candidates in findings that the data set excludes, outside of
    nodules, are left out.

    Items: ``image`` (1, D, S, S) float32 in [-1, 1], ``label`` (1,) float32, 1 or 0.

    Args:
        samples: records of the scans; each is read once, and only its cubes are kept.
        points: finds a scan's candidates.
        shape: of the cubes.
        window: HU range of [-1, 1].
        seed: of all draws.
        training: see above; the nodules' centres are among the points then.
        most: candidates without a nodule from each scan.
        preprocessing: MONAI dictionary transforms of cubes in HU, in the place of the window.
        augmentation: random MONAI dictionary transforms of ``image`` in training.
    Raises:
        UserError: a bad scan, or training scans without nodules or without other candidates.
    """

    def __init__(
        self,
        samples: Sequence[NoduleSample],
        points: Points,
        shape: CubeShape,
        window: Window,
        seed: int = 0,
        training: bool = False,
        most: int = 30,
        preprocessing: Transforms = None,
        augmentation: Transforms = None,
    ) -> None:
        self.preprocessing = flatten_transforms(preprocessing)
        self.augmentation = ReplayTransforms(augmentation, seed)
        self.samples, self.dropped = list(samples), 0
        self.shape, self.window, self.seed, self.training = shape, window, seed, training
        margin = JITTER if training else 0
        cut = [
            _labelled(scan, points(scan), shape, margin, training, most, make_rng(seed, "points", number))
            for number, scan in enumerate(read_nodule_scan(sample, window) for sample in self.samples)
        ]
        self.cubes = np.concatenate([cubes for cubes, _ in cut]) if cut else np.empty((0, 1, 1, 1), np.int16)
        self.labels = np.concatenate([labels for _, labels in cut]) if cut else np.empty(0, bool)
        self.positive, self.negative = np.flatnonzero(self.labels), np.flatnonzero(~self.labels)
        if training and not (len(self.positive) and len(self.negative)):
            what = "nodules" if len(self.negative) else "candidates without a nodule"
            raise UserError(f"the {len(self.samples)} training scans hold no {what}; bring more scans")

    def __len__(self) -> int:
        return 2 * len(self.positive) if self.training else len(self.labels)

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        sample = index if isinstance(index, SampleIndex) else SampleIndex(int(index), 0)
        if not self.training:
            return self._item(sample.index, self.cubes[sample.index])
        random = make_rng(self.seed, "cube", sample.epoch, sample.index)
        pair, without = divmod(sample.index, 2)  # even samples have a nodule
        number = int(random.choice(self.negative) if without else self.positive[pair])
        top, left = random.integers(0, 2 * JITTER + 1, 2)
        part = self.cubes[number][:, top : top + self.shape.size, left : left + self.shape.size]
        return self.augmentation(self._item(number, part), sample)

    def _item(self, number: int, cube: NDArray[np.int16]) -> dict[str, Any]:
        (image,) = network_input(cube[None], self.window, self.preprocessing)
        return {"image": image, "label": torch.tensor([float(self.labels[number])])}


class CubeData(SplitData[CubeDataset]):
    """Cubes of a data set of scans, split by patient as for segmentation.

    Args:
        dataset_dir, unannotated, patient_pattern: see `common.data.nodules.find_nodule_scans`.
        hu_offset, source_range, mask_threshold, ignore_value: see `common.data.samples.with_values`.
        points: finds a scan's candidates.
        size, side_mm, depth, step_mm: see `CubeShape`; cubes of pictures are one slice deep.
        window: HU window: a preset's name or [lower, upper].
        seed: the run's seed.
        most, preprocessing, augmentation: see `CubeDataset`.
        split_seed: of the split.
        parts: splits to load; None for all.
    Raises:
        UserError: a bad folder, file or setting.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from common.data.phantoms.writing import ensure_phantoms
        >>> with TemporaryDirectory() as work:
        ...     scans = ensure_phantoms(f"{work}/scans", patients=4, shape=(32, 32, 12), with_lesions=False)
        ...     data = CubeData(
        ...         scans, lambda scan: find_blobs(scan.hu, scan.spacing).centres, size=16, depth=4
        ...     )
        >>> data.train[0]["image"].shape, len(data.train)  # five with a nodule, as many without
        (torch.Size([1, 4, 16, 16]), 10)
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        points: Points,
        size: int = 32,
        side_mm: float = 32.0,
        depth: int = 1,
        step_mm: float = 2.0,
        window: str | Window | Sequence[float] = "lung",
        seed: int = 0,
        most: int = 30,
        unannotated: str = "refuse",
        split_seed: int = 0,
        parts: Sequence[str] | None = None,
        patient_pattern: str | None = None,
        hu_offset: float | None = None,
        preprocessing: Transforms = None,
        augmentation: Transforms = None,
        source_range: Sequence[float] | None = None,
        mask_threshold: float | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        self.dataset_dir, self.window = Path(dataset_dir), window_by_name(window)
        self.patient_pattern = patient_pattern
        values = (source_range, mask_threshold, ignore_value)
        samples = find_nodule_scans(dataset_dir, "auto", unannotated, hu_offset, patient_pattern, *values)
        self.splits = self.split_by(samples, FRACTIONS, split_seed)  # type: ignore[arg-type]
        flat = not any(is_volume(sample.image) for sample in samples)
        self.shape = CubeShape(size, side_mm, 1 if flat else depth, step_mm)
        self.datasets = {
            name: CubeDataset(
                part,  # type: ignore[arg-type]
                points,
                self.shape,
                self.window,
                seed,
                name == "train",
                most,
                preprocessing,
                augmentation,
            )
            for name, part in self.splits.items()
            if parts is None or name in parts
        }
        logger.info(self.summary())

    def summary(self) -> str:
        """One line with the cubes of each split, with and without a nodule."""
        balance = ", ".join(
            f"{name} {len(part.positive)} with, {len(part.negative)} without nodule"
            for name, part in self.datasets.items()
        )
        return f"{self.dataset_dir}: cubes of {balance}"

    def metadata(self) -> dict[str, Any]:
        """The facts stored with a trained model, as plain JSON: window, cubes, patients."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "value_range": [-1.0, 1.0],
            "cube": asdict(self.shape),
            **self.split_facts(),
            "cubes": {name: len(part.labels) for name, part in self.datasets.items()},
        }


def hits_nodule(
    scan: NoduleScan, points: NDArray[Any], nodules: Sequence[Nodule] | None = None
) -> NDArray[np.bool_]:
    """Whether points (N, 3) in voxels lie within a nodule's radius of its centre, (N,).

    Args:
        nodules: None for the scan's own.
    """
    positions = scan.in_mm(np.asarray(points, np.float64).reshape(-1, 3))
    hit = np.zeros(len(positions), bool)
    for nodule in scan.nodules if nodules is None else nodules:
        distance = np.linalg.norm(positions - np.array(nodule.centre_mm), axis=1)
        hit |= distance <= nodule.diameter_mm / 2
    return hit


def _labelled(
    scan: NoduleScan,
    points: NDArray[Any],
    shape: CubeShape,
    margin: int,
    centres: bool,
    most: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The cubes of a scan with their labels; ``centres`` adds the nodules' centres to the points."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    if centres:
        points = np.concatenate([[n.centre_voxel for n in scan.nodules], points]) if scan.nodules else points
    labels = hits_nodule(scan, points)
    without = ~labels & ~hits_nodule(scan, points, scan.excluded)
    kept = labels.copy()
    kept[random.permutation(np.flatnonzero(without))[:most]] = True
    return cut_cubes(scan, points[kept], shape, margin), labels[kept]

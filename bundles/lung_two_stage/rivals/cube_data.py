"""Cubes with and without a nodule, for classifiers of candidates."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bundles.lung_two_stage.rivals.cubes import CubeShape, cut_cubes
from common.data.intensity import Window, to_network, to_unit, window_by_name
from common.data.nodule_layouts import NoduleSample, find_nodule_scans
from common.data.nodule_scan import Nodule, NoduleScan, read_nodule_scan
from common.data.sampling import Draw
from common.data.split_data import SplitData
from common.data.volume_files import is_volume
from common.errors import UserError
from common.random import generator

logger = logging.getLogger(__name__)
JITTER = 4
"""Voxels by which a training cube may be off its point."""
Points = Callable[[NoduleScan], NDArray[Any]]
"""Where a scan's candidates are: (N, 3) voxels (slice, row, column)."""


class CubeDataset(Dataset[dict[str, Any]]):
    """Cubes around candidates and nodules of scans.

    Training draws as many cubes without as with a nodule: an epoch has each one with and as many others,
    drawn anew; each is moved, flipped and turned. Otherwise every cube comes once. Candidates in
    findings that the data set excludes, and in no nodule, are neither.

    Items: ``image`` (1, D, S, S) float32 in [-1, 1], ``label`` (1,) float32, 1 or 0.

    Args:
        samples: the scans' records; each is read once, and only its cubes are kept.
        points: the candidates' generator.
        shape: of the cubes.
        window: whose ends are -1 and 1.
        seed: of the draws.
        training: see above; the nodules' centres are among the points then.
        most: candidates without nodule of each scan, drawn from all.
    Raises:
        UserError: a bad scan, or no cube with a nodule.
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
    ) -> None:
        self.samples, self.dropped = list(samples), 0
        self.shape, self.window, self.seed, self.training = shape, window, seed, training
        margin = JITTER if training else 0
        cut = [
            _labelled(scan, points(scan), shape, margin, training, most, generator(seed, "points", number))
            for number, scan in enumerate(_scans(self.samples, window))
        ]
        self.cubes = np.concatenate([cubes for cubes, _ in cut]) if cut else np.empty((0, 1, 1, 1), np.int16)
        self.labels = np.concatenate([labels for _, labels in cut]) if cut else np.empty(0, bool)
        self.positive, self.negative = np.flatnonzero(self.labels), np.flatnonzero(~self.labels)
        if training and not (len(self.positive) and len(self.negative)):
            what = "nodules" if len(self.negative) else "candidates without a nodule"
            raise UserError(f"the {len(self.samples)} training scans hold no {what}; bring more scans")

    def __len__(self) -> int:
        return 2 * len(self.positive) if self.training else len(self.labels)

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        draw = visit if isinstance(visit, Draw) else Draw(0, int(visit))
        if not self.training:
            return self._item(draw.sample, self.cubes[draw.sample])
        random = generator(self.seed, "cube", draw.epoch, draw.sample)
        place = self._place(draw.sample, random)
        return self._item(place, _varied(self.cubes[place], self.shape.size, random))

    def _place(self, sample: int, random: np.random.Generator) -> int:
        """Even numbers are the cubes with a nodule, odd ones are drawn from those without."""
        number, without = divmod(sample, 2)
        return int(random.choice(self.negative) if without else self.positive[number])

    def _item(self, place: int, cube: NDArray[np.int16]) -> dict[str, Any]:
        image = to_network(to_unit(cube, self.window, is_hu=True))
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image))[None],
            "label": torch.tensor([float(self.labels[place])]),
        }


class CubeData(SplitData[CubeDataset]):
    """A set of scans, split by patient as for segmentation, as cubes.

    Args:
        dataset_dir, layout, unannotated, patient_pattern, hu_offset: see
            `common.data.nodule_layouts.find_nodule_scans`.
        points: the candidates' generator.
        size, side_mm, depth, step_mm: of the cubes, see `CubeShape`; one slice deep where all scans are
            pictures.
        window: HU window: a preset's name or [lower, upper].
        seed: the run's seed.
        most: see `CubeDataset`.
        fractions, split_seed: of the split.
        parts: which splits to load; None for all.
    Raises:
        UserError: a bad folder, file or setting.
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
        layout: str = "auto",
        unannotated: str = "refuse",
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        parts: Sequence[str] | None = None,
        patient_pattern: str | None = None,
        hu_offset: float | None = None,
    ) -> None:
        self.dataset_dir, self.window = Path(dataset_dir), window_by_name(window)
        self.patient_pattern = patient_pattern
        samples = find_nodule_scans(dataset_dir, layout, unannotated, hu_offset, patient_pattern)
        self.splits = self.split_by(samples, fractions, split_seed)  # type: ignore[arg-type]
        flat = not any(is_volume(sample.image) for sample in samples)
        self.shape = CubeShape(size, side_mm, 1 if flat else depth, step_mm)
        self.datasets = {
            name: CubeDataset(part, points, self.shape, self.window, seed, name == "train", most)  # type: ignore[arg-type]
            for name, part in self.splits.items()
            if parts is None or name in parts
        }
        logger.info(self.summary())

    def summary(self) -> str:
        """One line: cubes and patients of each split, with and without a nodule."""
        balance = ", ".join(
            f"{name} {len(part.positive)} with, {len(part.negative)} without nodule"
            for name, part in self.datasets.items()
        )
        return f"{self.dataset_dir}: cubes of {balance}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: window, cubes, patients."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "value_range": [-1.0, 1.0],
            "cube": {
                "size": self.shape.size,
                "side_mm": self.shape.side_mm,
                "depth": self.shape.depth,
                "step_mm": self.shape.step_mm,
            },
            **self.split_facts(),
            "cubes": {name: len(part.labels) for name, part in self.datasets.items()},
        }


def hits_nodule(
    scan: NoduleScan, points: NDArray[Any], nodules: Sequence[Nodule] | None = None
) -> NDArray[np.bool_]:
    """Which points (N, 3) in voxels lie within a nodule's radius of its centre.

    Args:
        nodules: the scan's own where there are none given.
    """
    places = scan.in_mm(np.asarray(points, np.float64).reshape(-1, 3))
    hit = np.zeros(len(places), bool)
    for nodule in scan.nodules if nodules is None else nodules:
        distance = np.linalg.norm(places - np.array(nodule.centre_mm), axis=1)
        hit |= distance <= nodule.diameter_mm / 2
    return hit


def _scans(samples: Sequence[NoduleSample], window: Window) -> Iterable[NoduleScan]:
    return (read_nodule_scan(sample, window) for sample in samples)


def _labelled(
    scan: NoduleScan,
    points: NDArray[Any],
    shape: CubeShape,
    margin: int,
    centres: bool,
    most: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The scan's cubes with their labels; with the nodules' centres, where wanted."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    if centres:
        points = np.concatenate([[n.centre_voxel for n in scan.nodules], points]) if scan.nodules else points
    labels = hits_nodule(scan, points)
    without = ~labels & ~hits_nodule(scan, points, scan.excluded)
    kept = labels.copy()
    kept[random.permutation(np.flatnonzero(without))[:most]] = True
    return cut_cubes(scan, points[kept], shape, margin), labels[kept]


def _varied(cube: NDArray[np.int16], size: int, random: np.random.Generator) -> NDArray[np.int16]:
    """A moved, flipped and turned (D, S, S) part of a larger cube."""
    top, left = random.integers(0, cube.shape[1] - size + 1, 2)
    part = np.rot90(cube[:, top : top + size, left : left + size], int(random.integers(4)), axes=(1, 2))
    flips = tuple(axis for axis in range(3) if random.random() < 0.5)
    return np.asarray(np.flip(part, flips))

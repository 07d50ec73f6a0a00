"""Slices for the banks: which of a scan's slices are taken, how they are resized, and of which patients."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bundles.lung_two_stage.banks import SliceBank, SliceRecord
from bundles.lung_two_stage.extraction.crops import spread_evenly
from bundles.lung_two_stage.extraction.presence_map import SIDES, find_lung_box
from common.data.image_io import Pixels, check_varied, read_pixels
from common.data.image_layouts import find_images
from common.data.intensity import Window, to_hu, to_unit
from common.data.lung_segmentation import segment_lung_part, segment_lung_slice, segment_lungs
from common.data.nodules import ANNOTATIONS, NoduleSample, NoduleScan, find_nodule_scans, read_nodule_scan
from common.data.samples import Sample, is_volume
from common.data.slice_geometry import resize_image
from common.data.splits import held_out, split_samples
from common.data.volume_io import open_volume
from common.errors import UserError
from common.rng import make_rng

AIR_HU, METAL_HU = -1024, 3071
"""Range of a CT's HU; scanners mark pixels outside their field of view with less."""
CHEST_MM = 150.0
"""A scan that is narrower or less deep is a crop around a nodule without whole lungs."""
PICTURE_MM = 340.0
"""Width of a picture that does not state its scale: a chest with little around it."""
PARTIAL, IMPLAUSIBLE = "scans that show no whole chest", "pictures in which no pair of lungs was found"
LUNG_SHARE = 0.06, 0.75
"""Least and largest share of a picture's pixels that two lungs have."""
SMALLER_LUNG = 0.15
"""Least share of the smaller lung in both."""
FILLED = 0.3
"""Least share of its bounding box that a lung fills."""


@dataclass(frozen=True)
class SliceSettings:
    """How slices are chosen and resized.

    Args:
        image_size: side in pixels.
        slices_per_patient: most slices of a scan with nodules, and most without, evenly spread.
        least_lung: least lung area of a slice, as a share of the scan's largest.
        part_mm: side of the windows that replace slices, of scans of any extent; None for whole slices.
    Raises:
        UserError: a setting is out of range.
    """

    image_size: int = 128
    slices_per_patient: int = 16
    least_lung: float = 0.4
    part_mm: float | None = None

    def __post_init__(self) -> None:
        if min(self.image_size, self.slices_per_patient) < 1 or not 0 < self.least_lung <= 1:
            raise UserError(
                f"image_size {self.image_size}, slices_per_patient {self.slices_per_patient}, least_lung "
                f"{self.least_lung}: give at least 1 pixel and slice, and a share above 0 up to 1"
            )
        if self.part_mm is not None and self.part_mm <= 0:
            raise UserError(f"part_mm {self.part_mm}: give the windows' side in mm, or null for whole slices")


def healthy_slice_indices(
    lung: NDArray[np.uint8], nodules: NDArray[np.uint8], settings: SliceSettings
) -> list[int]:
    """Slices (of (Z, H, W)) with enough lung and no nodule, neither in them nor in the slices beside them."""
    shown = np.asarray(nodules.any((1, 2)))
    near = shown.copy()
    near[:-1] |= shown[1:]  # partial volume
    near[1:] |= shown[:-1]
    return _choose(lung, ~near, settings)


def nodule_slice_indices(
    lung: NDArray[np.uint8], nodules: NDArray[np.uint8], settings: SliceSettings
) -> list[int]:
    """Slices (of (Z, H, W)) with enough lung and a nodule."""
    return _choose(lung, np.asarray(nodules.any((1, 2))), settings)


def _choose(lung: NDArray[np.uint8], usable: NDArray[np.bool_], settings: SliceSettings) -> list[int]:
    areas = (lung > 0).sum((1, 2))
    indices = np.flatnonzero(usable & (areas > 0) & (areas >= settings.least_lung * areas.max()))
    return [int(indices[n]) for n in spread_evenly(len(indices), settings.slices_per_patient)]


@dataclass(frozen=True)
class FittedSlice:
    """An entry of a `SliceBank`: (S, S) arrays, and its record."""

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    nodules: NDArray[np.uint8]
    record: SliceRecord


def fit_slice(
    hu: NDArray[np.int16],
    lung: NDArray[np.uint8],
    nodules: NDArray[np.uint8],
    spacing: Sequence[float],
    size: int,
    record: SliceRecord,
) -> FittedSlice:
    """Resizes a (H, W) slice to (S, S) with square pixels and pads it with air.

    Nodules at the pleura become part of the lung.

    Args:
        hu, lung, nodules: of the slice.
        spacing: mm along rows, columns.
        size: S.
        record: of the slice; its spacing is set.
    """
    side = max(hu.shape[0] * spacing[0], hu.shape[1] * spacing[1])  # mm
    height, width = (max(1, round(n * mm * size / side)) for n, mm in zip(hu.shape, spacing, strict=True))
    top, left = (size - height) // 2, (size - width) // 2
    box = slice(top, top + height), slice(left, left + width)
    values, labels = np.full((size, size), AIR_HU, np.int16), np.zeros((2, size, size), np.uint8)
    clipped = np.clip(hu, AIR_HU, METAL_HU).astype(np.float32)
    values[box] = np.rint(resize_image(clipped, height, width)).astype(np.int16)
    labels[0][box] = resize_labels(include_nodules(lung, nodules), height, width)
    labels[1][box] = resize_labels(nodules, height, width)
    return FittedSlice(values, labels[0], labels[1], replace(record, spacing_mm=round(side / size, 6)))


def include_nodules(lung: NDArray[np.uint8], nodules: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (H, W) lung map with all of the nodules; parts outside go to the nearer lung."""
    outside = (nodules > 0) & (lung == 0)
    if not outside.any() or not lung.any():
        return lung
    rows, columns = distance_transform_edt(lung == 0, return_distances=False, return_indices=True)
    return np.where(outside, lung[rows, columns], lung)


def resize_labels(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H, W) labels at another size: a pixel gets the label that fills at least half of it.

    A label that fills half of no pixel keeps the fullest one, so that no nodule is lost.
    """
    result = np.zeros((height, width), np.uint8)
    for label in np.unique(labels[labels > 0]):
        share = resize_image((labels == label).astype(np.float32), height, width)
        result[share >= min(0.5, float(share.max()))] = label
    return result


def make_slice_bank(slices: Sequence[FittedSlice], size: int) -> SliceBank:
    """The slices as a bank, which may be empty."""
    shape = (len(slices), size, size)
    hu = np.array([one.hu for one in slices], np.int16).reshape(shape)
    lung = np.array([one.lung for one in slices], np.uint8).reshape(shape)
    nodules = np.array([one.nodules for one in slices], np.uint8).reshape(shape)
    return SliceBank(hu, lung, nodules, [one.record for one in slices])


WINDOW_LUNG = 0.3
"""Least share of lung in a window, nodules included."""
MARGIN_MM = 2.0
"""A nodule lies inside or outside a window with more than this margin."""
EMPTY_WINDOWS = 2
"""Most windows of one slice without a nodule."""
WindowBox = tuple[slice, slice]


def window_pixels(side_mm: float, spacing: Sequence[float]) -> tuple[int, int]:
    """Rows and columns of a square window, at ``spacing`` mm along rows, columns."""
    rows, columns = (max(1, round(side_mm / size)) for size in spacing)
    return rows, columns


def draw_windows(
    lung: NDArray[np.uint8],
    nodules: NDArray[np.uint8],
    size: tuple[int, int],
    spacing: Sequence[float],
    random: np.random.Generator,
    with_nodule: bool,
) -> list[WindowBox]:
    """Draws one window with a nodule anywhere in it, or up to `EMPTY_WINDOWS` without, half a side apart.

    No window cuts a nodule. Where none is possible the list is empty.

    Args:
        lung, nodules: (H, W), 0 outside.
        size: rows and columns of a window.
        spacing: mm along rows, columns.
        random: draws the corners.
        with_nodule: which of the two.
    """
    near = nodules > 0
    if near.any():
        near = distance_transform_edt(~near, spacing) <= MARGIN_MM
    inside = _window_sums(near, size)  # by upper left corner
    if not inside.size or min(size) < 3:
        return []
    whole = inside == _window_sums(near[1:-1, 1:-1], (size[0] - 2, size[1] - 2))
    lung_pixels = _window_sums((lung > 0) | (nodules > 0), size)
    free = (lung_pixels >= WINDOW_LUNG * size[0] * size[1]) & whole & ((inside > 0) == with_nodule)
    windows: list[WindowBox] = []
    while len(windows) < (1 if with_nodule else EMPTY_WINDOWS) and free.any():
        corners = np.argwhere(free)
        top, left = (int(value) for value in corners[random.integers(len(corners))])
        windows.append((slice(top, top + size[0]), slice(left, left + size[1])))
        rows, columns = np.abs(np.arange(free.shape[0]) - top), np.abs(np.arange(free.shape[1]) - left)
        free &= (rows[:, None] * 2 >= size[0]) | (columns[None] * 2 >= size[1])
    return windows


def _window_sums(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels of the mask (H, W) in each window: (H - rows + 1, W - columns + 1), empty if none fits."""
    rows, columns = size
    if rows > mask.shape[0] or columns > mask.shape[1]:
        return np.zeros((0, 0), np.int64)
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    below = total[rows:] - total[:-rows]  # (H - rows + 1, W + 1)
    return below[:, columns:] - below[:, :-columns]


@dataclass(frozen=True)
class SegmentedScan:
    """A scan with its nodules and lungs.

    Args:
        scan: HU and annotations.
        mask: uint8 (Z, H, W), the nodules to extract.
        lung: uint8 (Z, H, W) 0, 1 right, 2 left; None for a scan without whole lungs.
        part: uint8 (Z, H, W) 0, 1 the lung of a scan that shows a part of the chest, for windows.
    """

    scan: NoduleScan
    mask: NDArray[np.uint8]
    lung: NDArray[np.uint8] | None
    part: NDArray[np.uint8] | None = None

    def nodule_slices(self, settings: SliceSettings) -> list[FittedSlice]:
        """Slices, or windows of them, with nodules in the mask."""
        if settings.part_mm is not None:
            return self._windows(settings, self.mask, with_nodule=True)
        if self.lung is None:
            return []
        indices = nodule_slice_indices(self.lung, self.mask, settings)
        return [self._fit(z, self.lung, settings) for z in indices]

    def healthy_slices(self, settings: SliceSettings) -> list[FittedSlice]:
        """Slices, or windows of them, without nodules, neither in the mask nor annotated.

        Those with an excluded finding are taken only from scans without others.
        """
        nodules = self.mask | self.scan.mask
        clean = self._without(settings, nodules | self.scan.excluded_mask()) if self.scan.has_excluded else []
        return clean or self._without(settings, nodules)

    def _without(self, settings: SliceSettings, nodules: NDArray[np.uint8]) -> list[FittedSlice]:
        if settings.part_mm is not None:
            return self._windows(settings, nodules, with_nodule=False)
        if self.lung is None:
            return []
        indices = healthy_slice_indices(self.lung, nodules, settings)
        return [self._fit(z, self.lung, settings) for z in indices]

    def _windows(
        self, settings: SliceSettings, nodules: NDArray[np.uint8], with_nodule: bool
    ) -> list[FittedSlice]:
        lung = self.part if self.lung is None else self.lung
        if lung is None or settings.part_mm is None:
            return []
        spacing, fitted = self.scan.spacing[1:], list[FittedSlice]()
        indices = np.flatnonzero((nodules if with_nodule else lung).any((1, 2)))
        size = window_pixels(settings.part_mm, spacing)
        for n in spread_evenly(len(indices), settings.slices_per_patient):
            z = int(indices[n])
            random = make_rng(0, "windows", self.scan.name, z)
            for window in draw_windows(lung[z], nodules[z], size, spacing, random, with_nodule):
                fitted.append(self._fit(z, lung, settings, window))
        return fitted

    def _fit(
        self, z: int, lung: NDArray[np.uint8], settings: SliceSettings, window: WindowBox | None = None
    ) -> FittedSlice:
        scan, box = self.scan, window or np.s_[:, :]
        name = scan.name if len(scan.hu) == 1 else f"{scan.name}-z{z:03d}"
        if window is not None:
            name += f"-at{window[0].start:03d}-{window[1].start:03d}"
        record = SliceRecord(name, scan.patient, 0.0, scan.nominal_hu, part=window is not None)
        planes = scan.hu[z][box], lung[z][box], self.mask[z][box]
        return fit_slice(*planes, scan.spacing[1:], settings.image_size, record)


def segment_scan(
    scan: NoduleScan, mask: NDArray[np.uint8], settings: SliceSettings, skipped: Counter[str]
) -> SegmentedScan:
    """Segments the lungs of a scan, if it shows them.

    Args:
        scan: of a chest or a part of it, or a picture of a single slice.
        mask: its nodules.
        settings: whether parts of the chest are wanted.
        skipped: counts scans without lungs, by reason.
    Raises:
        UserError: a scan of a whole chest in which no lung is found.
    """
    extent = scan.hu.shape[1] * scan.spacing[1], scan.hu.shape[2] * scan.spacing[2]
    if min(extent) < CHEST_MM:
        if settings.part_mm is None:
            skipped[PARTIAL] += 1
            return SegmentedScan(scan, mask, None)
        part = np.stack([segment_lung_part(plane, scan.spacing[1], scan.nominal_hu) for plane in scan.hu])
        return SegmentedScan(scan, mask, None, part)
    if len(scan.hu) > 1:
        return SegmentedScan(scan, mask, segment_lungs(scan.hu, scan.spacing, name=scan.name))
    try:
        lung = segment_lung_slice(scan.hu[0], scan.spacing[1], scan.nominal_hu, name=scan.name)
    except UserError:  # a picture of something else
        lung = np.zeros_like(scan.mask[0])
    if not looks_like_lungs(lung):
        skipped[IMPLAUSIBLE] += 1
        return SegmentedScan(scan, mask, None)
    return SegmentedScan(scan, mask, lung[None])


def looks_like_lungs(lung: NDArray[np.uint8]) -> bool:
    """Whether the lung map (H, W) of a picture with an unknown window is plausible for two lungs."""
    boxes = [find_lung_box(lung, side) for side in SIDES]
    areas = [int((lung == side).sum()) for side in SIDES]
    if any(box is None for box in boxes) or not LUNG_SHARE[0] <= sum(areas) / lung.size <= LUNG_SHARE[1]:
        return False
    filled = min(area / box.area for area, box in zip(areas, boxes, strict=True) if box is not None)
    return min(areas) >= SMALLER_LUNG * sum(areas) and filled >= FILLED


LEAST_FOR_ENHANCER = 2
"""The enhancer holds one patient out."""
LEAST_TO_SPLIT, MANY = 3, 8
"""Of at least 8 training patients the enhancer gets 3 or more: Table III's baselines split them again."""

S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class ExtractionSplit(Generic[S]):
    """Scans to generate from, scans for the enhancer, and test scans."""

    generation: list[S]
    enhancer: list[S]
    test: list[S]

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, sorted."""
        return {name: sorted({sample.patient for sample in part}) for name, part in vars(self).items()}


def split_for_enhancer(train: Sequence[S], test: Sequence[S], share: float, seed: int) -> ExtractionSplit[S]:
    """Splits the training patients again: those to generate from, and those kept for the enhancer.

    Args:
        train, test: of the data set's split; ``test`` stays as it is.
        share: of the training patients that go to the enhancer, at least two of three and three of eight, so
            that they can be split into train, val and test.
        seed: of the choice, which depends on a patient's name and not on the other patients.
    Raises:
        UserError: a share out of range, or fewer than two training patients.
    """
    if not 0 < share < 1:
        raise UserError(f"share_for_enhancer {share}: give a share above 0 and below 1")
    units = sorted({sample.unit for sample in train})
    if len(units) < 2:
        raise UserError(
            f"{len(units)} training patient: at least 2 are needed, one to generate from and one whose real "
            "slices the enhancer learns from; bring more patients"
        )
    least = LEAST_FOR_ENHANCER if len(units) < MANY else LEAST_TO_SPLIT
    kept = set(held_out(units, share, seed, "patients for the enhancer", least))
    return ExtractionSplit(
        [sample for sample in train if sample.unit not in kept],
        [sample for sample in train if sample.unit in kept],
        list(test),
    )


def find_healthy_slices(
    folder: str | os.PathLike[str],
    fractions: Sequence[float],
    split_seed: int,
    share: float,
    seed: int,
    hu_offset: float | None = None,
    patient_pattern: str | None = None,
    source_range: Sequence[float] | None = None,
) -> ExtractionSplit[Sample]:
    """Finds scans and pictures without nodules, split by patient as the data set itself.

    In LUNA16's layout, slices are healthy where ``annotations.csv`` knows no nodule; everything in other
    layouts is. With fewer than four patients all of them go to the generation.

    Args:
        folder: LUNA16's layout, or pictures and volumes.
        fractions, split_seed: of train, val and test.
        share, seed: see `split_for_enhancer`.
        hu_offset, patient_pattern, source_range: as for the data set.
    Raises:
        UserError: the folder is not valid.
    """
    root = Path(folder)
    samples: list[Sample]
    if (root / ANNOTATIONS).is_file():
        scans = find_nodule_scans(root, unannotated="normal", hu_offset=hu_offset, source_range=source_range)
        samples = list(scans)
    else:
        images = find_images(
            root, patient_pattern=patient_pattern, hu_offset=hu_offset, source_range=source_range
        ).samples
        samples = list({sample.image: sample for sample in images}.values())  # it lists slices of volumes
    if len({sample.unit for sample in samples}) < 4:
        return ExtractionSplit(samples, [], [])
    split = split_samples(root, samples, fractions, split_seed)
    return split_for_enhancer(split["train"], split["test"], share, seed)


def read_healthy_scans(samples: Iterable[Sample], window: Window) -> Iterator[NoduleScan]:
    """Reads scans one after the other; those of pictures and volumes have empty masks.

    Args:
        samples: from `find_healthy_slices`.
        window: HU of black and white in files that do not hold HU.
    Raises:
        UserError: a file cannot be read.
    """
    for sample in samples:
        if isinstance(sample, NoduleSample):
            yield read_nodule_scan(sample, window)
        elif is_volume(sample.image):
            yield _read_volume(sample, window)
        else:
            pixels = read_pixels(sample)
            spacing = PICTURE_MM / pixels.values.shape[1]
            plane = pixels._replace(values=pixels.values[None])
            yield _healthy_scan(sample.name, sample, plane, window, (spacing, spacing, spacing))


def _read_volume(sample: Sample, window: Window) -> NoduleScan:
    volume = open_volume(sample.image)
    check_varied(volume.array, sample.image)
    calibration = volume.calibrate(sample.hu_offset, sample.source_range, sample.image)
    values = np.moveaxis(volume.array, 2, 0)
    values = values + np.float32(calibration.offset) if calibration.offset else values
    pixels = Pixels(values, calibration.is_hu, calibration.source_range)
    rows, columns, slices = volume.spacing
    return _healthy_scan(replace(sample, index=None).name, sample, pixels, window, (slices, rows, columns))


def _healthy_scan(
    name: str, sample: Sample, pixels: Pixels, window: Window, spacing: tuple[float, float, float]
) -> NoduleScan:
    """A scan without nodules from pixels (Z, H, W)."""
    if pixels.is_hu:
        hu = np.clip(np.rint(pixels.values), -(2**15), 2**15 - 1).astype(np.int16)
    else:
        hu = to_hu(to_unit(pixels.values, window, False, pixels.source_range), window)
    return NoduleScan(
        hu, np.zeros(hu.shape, np.uint8), spacing, name, sample.patient, (), (), not pixels.is_hu
    )

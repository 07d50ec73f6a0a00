"""Which slices of a scan go into the banks: enough lung, spread over the scan, with nodules or without."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bundles.lung_two_stage.banks import SliceBank, SliceRecord
from bundles.lung_two_stage.extraction.crops import spread
from bundles.lung_two_stage.extraction.presence_map import SIDES, lung_box
from common.data.image_io import Pixels, read_pixels
from common.data.image_layouts import find_images
from common.data.intensity import Window, to_hu, to_unit
from common.data.lung_segmentation import segment_lung_part, segment_lung_slice, segment_lungs
from common.data.nodules import ANNOTATIONS, NoduleSample, NoduleScan, find_nodule_scans, read_nodule_scan
from common.data.samples import Sample
from common.data.splits import held_out, split_samples
from common.data.transforms import resize_image
from common.data.volume_io import is_volume, open_volume
from common.errors import UserError
from common.rng import make_rng

LUNG_SHARE = 0.06, 0.75
"""Of a picture's pixels: less or more is something else than lungs."""
SMALLER_LUNG = 0.15
"""Share that the smaller lung has of both in a picture."""
FILLED = 0.3
"""Share that a lung fills of its bounding box in a picture."""


@dataclass(frozen=True)
class SliceRules:
    """How slices are chosen and brought to size.

    Args:
        image_size: side in pixels.
        slices_per_patient: most slices of a scan with nodules, and most without, spread over it.
        least_lung: lung area of a slice, as a share of the scan's largest one, from which it is taken.
        part_mm: side of the windows that stand for slices, of scans of any extent; None for whole slices.
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


def with_lung(lung: NDArray[np.uint8], rules: SliceRules) -> NDArray[np.bool_]:
    """(Z) whether each slice of a (Z, H, W) lung map shows enough lung."""
    areas = (lung > 0).sum((1, 2))
    return (areas > 0) & (areas >= rules.least_lung * areas.max())


def healthy_slice_indices(
    lung: NDArray[np.uint8], nodules: NDArray[np.uint8], rules: SliceRules
) -> list[int]:
    """Slices with enough lung that show no nodule and are not next to one that does (it shows through)."""
    shown = np.asarray(nodules.any((1, 2)))
    near = shown.copy()
    near[:-1] |= shown[1:]
    near[1:] |= shown[:-1]
    return _spread(with_lung(lung, rules) & ~near, rules)


def nodule_slices(lung: NDArray[np.uint8], nodules: NDArray[np.uint8], rules: SliceRules) -> list[int]:
    """Slices with enough lung that show nodules."""
    return _spread(with_lung(lung, rules) & np.asarray(nodules.any((1, 2))), rules)


def plausible(lung: NDArray[np.uint8]) -> bool:
    """Whether what was found in a (H, W) picture of unknown window looks like two lungs."""
    boxes = [lung_box(lung, side) for side in SIDES]
    areas = [int((lung == side).sum()) for side in SIDES]
    if any(box is None for box in boxes) or not LUNG_SHARE[0] <= sum(areas) / lung.size <= LUNG_SHARE[1]:
        return False
    filled = min(area / box.area for area, box in zip(areas, boxes, strict=True) if box is not None)
    return min(areas) >= SMALLER_LUNG * sum(areas) and filled >= FILLED


def _spread(fitting: NDArray[np.bool_], rules: SliceRules) -> list[int]:
    places = np.flatnonzero(fitting)
    return [int(places[number]) for number in spread(len(places), rules.slices_per_patient)]


AIR_HU, METAL_HU = -1024, 3071
"""Range of a CT's HU; scanners mark what lies outside their field with less."""


@dataclass(frozen=True)
class FittedSlice:
    """An entry of a `SliceBank`: (S, S) arrays as there, and its record."""

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
    """Brings a (H, W) slice to (S, S) with square pixels, air around it; ``record`` gets the pixel's side.

    The lung is made to hold the nodules, those at the pleura too.

    Args:
        spacing: mm along rows, columns.
        size: S.
    """
    side = max(hu.shape[0] * spacing[0], hu.shape[1] * spacing[1])  # mm
    height, width = (max(1, round(n * mm * size / side)) for n, mm in zip(hu.shape, spacing, strict=True))
    values = np.full((size, size), AIR_HU, np.int16)
    labels = np.zeros((2, size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    there = slice(top, top + height), slice(left, left + width)
    clipped = np.clip(hu, AIR_HU, METAL_HU).astype(np.float32)
    values[there] = np.rint(resize_image(clipped, height, width)).astype(np.int16)
    for place, whole in enumerate((holding(lung, nodules), nodules)):
        labels[place][there] = resize_labels(whole, height, width)
    kept = replace(record, spacing_mm=round(side / size, 6))
    return FittedSlice(values, labels[0], labels[1], kept)


def holding(lung: NDArray[np.uint8], nodules: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (H, W) lung with its nodules: what of them lies outside goes to the nearer lung."""
    outside = (nodules > 0) & (lung == 0)
    if not outside.any() or not lung.any():
        return lung
    rows, columns = distance_transform_edt(lung == 0, return_distances=False, return_indices=True)
    return np.where(outside, lung[rows, columns], lung)


def resize_labels(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H, W) labels at another size: a pixel has the label that fills at least half of it.

    A label that fills half of no pixel keeps the one of which it fills most: no nodule is lost.
    """
    result = np.zeros((height, width), np.uint8)
    for label in np.unique(labels[labels > 0]):
        share = resize_image((labels == label).astype(np.float32), height, width)
        result[share >= min(0.5, float(share.max()))] = label
    return result


def slice_bank(slices: Sequence[FittedSlice], size: int) -> SliceBank:
    """The slices as a bank, which may be empty."""
    empty = np.zeros((0, size, size))

    def stacked(name: str, kind: type[np.generic]) -> NDArray:
        return np.array([getattr(one, name) for one in slices], kind) if slices else empty.astype(kind)

    arrays = stacked("hu", np.int16), stacked("lung", np.uint8), stacked("nodules", np.uint8)
    return SliceBank(*arrays, [one.record for one in slices])


LEAST_LUNG = 0.3
"""Share of a window that lung fills, nodules included."""
MARGIN_MM = 2.0
"""A nodule lies in a window or outside with more than this much around it."""
MOST_EMPTY = 2
"""Windows without nodule of one slice."""

CropBox = tuple[slice, slice]


def window_pixels(side_mm: float, spacing: Sequence[float]) -> tuple[int, int]:
    """Rows and columns of a window.

    Args:
        spacing: mm along rows, columns.
    """
    rows, columns = (max(1, round(side_mm / size)) for size in spacing)
    return rows, columns


def draw_windows(
    lung: NDArray[np.uint8],
    nodules: NDArray[np.uint8],
    size: tuple[int, int],
    spacing: Sequence[float],
    random: np.random.Generator,
    with_nodule: bool,
) -> list[CropBox]:
    """One window that holds a nodule, anywhere in it, or up to `MOST_EMPTY` without any, at least half a side
    apart. None cuts a nodule; none at all where no place is fit.

    Args:
        lung, nodules: (H, W), 0 outside.
        size: rows and columns of a window.
        spacing: mm along rows, columns.
        random: chooses the places.
        with_nodule: which of the two.
    """
    fit, held = _places(lung, nodules, size, spacing)
    wanted = (held > 0) == with_nodule
    return _drawn(fit & wanted, size, random, 1 if with_nodule else MOST_EMPTY)


def _places(
    lung: NDArray[np.uint8], nodules: NDArray[np.uint8], size: tuple[int, int], spacing: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each upper left corner: whether a window there has enough lung and cuts no nodule, and how many
    pixels of nodules with their margin it holds."""
    near = nodules > 0
    if near.any():
        near = distance_transform_edt(~near, spacing) <= MARGIN_MM
    filled, held = _sums((lung > 0) | (nodules > 0), size), _sums(near, size)
    if not held.size or min(size) < 3:
        return np.zeros(held.shape, bool), held
    inner = _sums(near[1:-1, 1:-1], (size[0] - 2, size[1] - 2))
    return (filled >= LEAST_LUNG * size[0] * size[1]) & (held == inner), held


def _sums(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels of the mask (H, W) in each window: (H - rows + 1, W - columns + 1), empty where none fits."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    rows, columns = size
    if rows > mask.shape[0] or columns > mask.shape[1]:
        return np.zeros((0, 0), np.int64)
    below = total[rows:] - total[:-rows]  # (H - rows + 1, W + 1)
    return below[:, columns:] - below[:, :-columns]


def _drawn(
    fit: NDArray[np.bool_], size: tuple[int, int], random: np.random.Generator, most: int
) -> list[CropBox]:
    """Some of the fitting windows, each at least half a side from the others."""
    free, found = fit.copy(), list[CropBox]()
    while len(found) < most and free.any():
        corners = np.argwhere(free)
        top, first = (int(place) for place in corners[random.integers(len(corners))])
        found.append((slice(top, top + size[0]), slice(first, first + size[1])))
        rows, columns = np.abs(np.arange(fit.shape[0]) - top), np.abs(np.arange(fit.shape[1]) - first)
        free &= (rows[:, None] * 2 >= size[0]) | (columns[None] * 2 >= size[1])
    return found


CHEST_MM = 150.0
"""What is less wide or less deep is a part cut out around a nodule and shows no whole lungs."""
PARTIAL, UNLIKE = "scans that show no whole chest", "pictures in which no pair of lungs was found"


@dataclass(frozen=True)
class Seen:
    """A scan with what was found in it.

    Args:
        scan: HU and annotations.
        mask: uint8 (Z, H, W), the nodules to extract.
        lung: uint8 (Z, H, W) 0, 1 right, 2 left; None where the scan shows no whole lungs.
        aerated: uint8 (Z, H, W) 0, 1 the lung in a scan of a part of the chest, where windows are cut.
    """

    scan: NoduleScan
    mask: NDArray[np.uint8]
    lung: NDArray[np.uint8] | None
    aerated: NDArray[np.uint8] | None = None

    def healthy_slices(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices, or windows of them, without nodules: neither in the mask nor annotated.

        Those with an excluded finding are taken only from scans that have no others.
        """
        shown = self.mask | self.scan.mask
        found = self._without(rules, shown | self.scan.excluded_mask()) if self.scan.excluded else []
        return found or self._without(rules, shown)

    def _without(self, rules: SliceRules, shown: NDArray[np.uint8]) -> list[FittedSlice]:
        if rules.part_mm is not None:
            return self._windows(rules, shown, with_nodule=False)
        if self.lung is None:
            return []
        return [self._fitted(z, self.lung, rules) for z in healthy_slice_indices(self.lung, shown, rules)]

    def with_nodules(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices, or windows of them, with nodules in the mask."""
        if rules.part_mm is not None:
            return self._windows(rules, self.mask, with_nodule=True)
        if self.lung is None:
            return []
        return [self._fitted(z, self.lung, rules) for z in nodule_slices(self.lung, self.mask, rules)]

    def _windows(self, rules: SliceRules, nodules: NDArray[np.uint8], with_nodule: bool) -> list[FittedSlice]:
        lung = self.aerated if self.lung is None else self.lung
        if lung is None or rules.part_mm is None:
            return []
        spacing, found = self.scan.spacing[1:], list[FittedSlice]()
        places = np.flatnonzero((nodules if with_nodule else lung).any((1, 2)))
        size = window_pixels(rules.part_mm, spacing)
        for z in places[spread(len(places), rules.slices_per_patient)] if len(places) else ():
            random = make_rng(0, "windows", self.scan.name, int(z))
            for window in draw_windows(lung[z], nodules[z], size, spacing, random, with_nodule):
                found.append(self._fitted(int(z), lung, rules, window))
        return found

    def _fitted(
        self, z: int, lung: NDArray[np.uint8], rules: SliceRules, window: CropBox | None = None
    ) -> FittedSlice:
        scan, there = self.scan, window or np.s_[:, :]
        name = scan.name if len(scan.hu) == 1 else f"{scan.name}-z{z:03d}"
        if window is not None:
            name += f"-at{window[0].start:03d}-{window[1].start:03d}"
        record = SliceRecord(name, scan.patient, 0.0, scan.nominal_hu, part=window is not None)
        return fit_slice(
            scan.hu[z][there],
            lung[z][there],
            self.mask[z][there],
            scan.spacing[1:],
            rules.image_size,
            record,
        )


def look(scan: NoduleScan, mask: NDArray[np.uint8], rules: SliceRules, skipped: Counter[str]) -> Seen:
    """Finds the scan's lungs, where it shows them; what shows none is counted in ``skipped``.

    Args:
        rules: whether parts of the chest are wanted.

    Raises:
        UserError: a whole scan of the chest without a lung.
    """
    extent = scan.hu.shape[1] * scan.spacing[1], scan.hu.shape[2] * scan.spacing[2]
    if min(extent) < CHEST_MM:
        if rules.part_mm is not None:
            return Seen(scan, mask, None, _aerated(scan))
        skipped[PARTIAL] += 1
        return Seen(scan, mask, None)
    if len(scan.hu) > 1:
        return Seen(scan, mask, segment_lungs(scan.hu, scan.spacing, name=scan.name))
    lung = _picture(scan)
    skipped[UNLIKE] += lung is None
    return Seen(scan, mask, lung)


def _aerated(scan: NoduleScan) -> NDArray[np.uint8]:
    return np.stack([segment_lung_part(plane, scan.spacing[1], scan.nominal_hu) for plane in scan.hu])


def _picture(scan: NoduleScan) -> NDArray[np.uint8] | None:
    """The lungs of a single slice; None where there are none or what was found does not look like lungs."""
    try:
        lung = segment_lung_slice(scan.hu[0], scan.spacing[1], scan.nominal_hu, name=scan.name)
    except UserError:
        return None
    return lung[None] if plausible(lung) else None


LEAST_FOR_ENHANCER = 2
"""The enhancer holds one patient out."""
LEAST_TO_SPLIT, MANY = 3, 8
"""So many patients go to the enhancer where there are many: Table III's baselines split them once more."""

S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class Parts(Generic[S]):
    """Scans by purpose."""

    generation: list[S]
    enhancer: list[S]
    test: list[S]

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, sorted."""
        return {name: sorted({sample.patient for sample in part}) for name, part in vars(self).items()}


def parts_of(train: Sequence[S], test: Sequence[S], share: float, seed: int) -> Parts[S]:
    """Splits the training patients once more: those to generate from, and those kept for the enhancer.

    Args:
        train, test: of the data set's split; test stays as it is.
        share: of the training patients that go to the enhancer: at least two, where three are there, and
            three where eight are, so that they can be split into train, val and test once more.
        seed: another seed gives another split. Who goes follows from the patient's name: it stays when others
            come or go.
    Raises:
        UserError: a share out of range, or fewer than two training patients.
    """
    if not 0 < share < 1:
        raise UserError(f"share_for_enhancer {share}: give a share between 0 and 1")
    units = sorted({sample.unit for sample in train})
    if len(units) < 2:
        raise UserError(
            f"{len(units)} training patient: at least 2 are needed, one to generate from and one that the "
            "enhancer learns real slices of; bring more patients"
        )
    least = LEAST_FOR_ENHANCER if len(units) < MANY else LEAST_TO_SPLIT
    kept = set(held_out(units, share, seed, "patients for the enhancer", least))
    return Parts(
        [sample for sample in train if sample.unit not in kept],
        [sample for sample in train if sample.unit in kept],
        list(test),
    )


FIELD_MM = 340.0
"""Width of what a picture shows, where nothing says its scale: a chest with little around it."""


def find_healthy_slices(
    folder: str | os.PathLike[str],
    fractions: Sequence[float],
    split_seed: int,
    share: float,
    seed: int,
    hu_offset: float | None = None,
    patient_pattern: str | None = None,
) -> Parts[Sample]:
    """The scans and pictures of a folder by purpose, split by patient as the data set itself is.

    LUNA16's layout gives the slices that ``annotations.csv`` knows no nodule in; all others are taken for
    free of nodules. With fewer than four patients everything is for the generation.

    Raises:
        UserError: a bad folder.
    """
    place = Path(folder)
    found: list[Sample]
    if (place / ANNOTATIONS).is_file():
        found = list(find_nodule_scans(place, unannotated="normal", hu_offset=hu_offset))
    else:
        found = _whole(find_images(place, patient_pattern=patient_pattern, hu_offset=hu_offset).samples)
    if len({sample.unit for sample in found}) < 4:
        return Parts(found, [], [])
    split = split_samples(place, found, fractions, split_seed)
    return parts_of(split["train"], split["test"], share, seed)


def read_healthy_scans(samples: Sequence[Sample], window: Window) -> Iterator[NoduleScan]:
    """The scans, read one after the other; those of `find_images` have empty masks.

    Args:
        window: whose ends are black and white of files that are not HU.
    Raises:
        UserError: unreadable.
    """
    for sample in samples:
        if isinstance(sample, NoduleSample):
            yield read_nodule_scan(sample, window)
        else:
            yield _read(sample, window)


def _whole(samples: Sequence[Sample]) -> list[Sample]:
    """One sample for each file: `find_images` lists the slices of volumes."""
    return list({sample.image: sample for sample in samples}.values())


def _read(sample: Sample, window: Window) -> NoduleScan:
    if not is_volume(sample.image):
        pixels = read_pixels(sample)
        spacing = (FIELD_MM / pixels.values.shape[1],) * 3
        return _plain(sample.name, sample, _hu(pixels, window)[None], spacing, pixels.is_hu)
    volume = open_volume(sample.image)
    values, offset = np.moveaxis(volume.array, 2, 0), volume.offset(sample.hu_offset, sample.image)
    pixels = Pixels(values + np.float32(offset) if offset else values, volume.is_hu, volume.source_range)
    name = replace(sample, index=None).name
    rows, columns, slices = volume.spacing
    return _plain(name, sample, _hu(pixels, window), (slices, rows, columns), pixels.is_hu)


def _plain(
    name: str, sample: Sample, hu: NDArray[np.int16], spacing: tuple[float, float, float], is_hu: bool
) -> NoduleScan:
    """A scan without nodules."""
    return NoduleScan(hu, np.zeros(hu.shape, np.uint8), spacing, name, sample.patient, (), (), not is_hu)


def _hu(pixels: Pixels, window: Window) -> NDArray[np.int16]:
    if pixels.is_hu:
        return np.clip(np.rint(pixels.values), -(2**15), 2**15 - 1).astype(np.int16)
    return to_hu(to_unit(pixels.values, window, False, pixels.source_range), window)

"""HU of 8-bit chest pictures whose scale is unknown: lung and soft tissue say what their gray means.

Pictures cut from CT are often stretched from the least to the largest value of each slice, so that one gray
is another HU in every picture. The scale is still linear, and two of its values can be found: the gray of the
lung around the nodule, and that of muscle and blood.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d
from scipy.signal import find_peaks
from skimage.filters import threshold_otsu
from torch.utils.data import Dataset

from common.data.image_io import for_each, read_label_picture, read_picture
from common.data.intensity import Window, to_hu, to_network, to_unit, window_by_name
from common.data.layouts import MASK_FOLDERS, PHANTOM_MARKER, image_files, paired_files
from common.data.luna16 import WorldNodule, paint_spheres, read_annotations, voxels_of
from common.data.patients import keep_scans_together, patient_of
from common.data.sampler import SampleIndex
from common.data.samples import Sample, stem, with_hu_offset
from common.data.transforms import Augmentation, apply_to_image, apply_to_mask
from common.data.volume_io import NIFTI_SUFFIXES, Volume, is_volume, itk_geometry, nifti_geometry, open_volume
from common.errors import UserError, read_errors
from common.files import read_json
from common.rng import make_rng

LUNG, TISSUE = -840.0, 30.0
"""HU that the two levels have in the median of 240 crops of LIDC-IDRI whose HU are known."""
NEAR = 24
"""Pixels around a nodule in which its lung is looked for."""
FEWEST = 64
"""Pixels that a level is measured in."""
SMOOTH = 0.012
"""Of the histogram of soft tissue, as a share of the picture's range: noise and the grays' steps."""
BESIDE = 0.4
"""Height of a mode of the histogram, as a share of the largest, from which it counts."""
LEAST_STEP = 0.1
"""Of the range: levels that are closer are not lung and tissue."""


def levels_of(gray: NDArray[np.floating], nodule: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The grays of lung and of soft tissue; None where the picture does not show both.

    Args:
        gray: (H, W), linear in HU. Its least value is what lies outside the scan, or air; it is not counted.
        nodule: (H, W): the lung beside it is the one that counts.
    """
    values = np.asarray(gray, np.float64)
    span = float(values.max() - values.min())
    shown = values > values.min()
    if shown.sum() < 2 * FEWEST or span <= 0:
        return None
    smooth = gaussian_filter(values, 1.0)
    between = float(threshold_otsu(smooth[shown]))
    beside = binary_dilation(nodule, iterations=NEAR) & ~binary_dilation(nodule, iterations=3)
    lung = values[(beside if nodule.any() else shown) & shown & (smooth < between)]
    tissue = values[shown & (smooth > between)]
    if min(lung.size, tissue.size) < FEWEST:
        return None
    found = float(np.median(lung)), _muscle(tissue, span)
    return found if found[1] - found[0] >= LEAST_STEP * span else None


def hu_by_levels(
    gray: NDArray[np.floating], nodule: NDArray[np.bool_], otherwise: Window
) -> NDArray[np.int16]:
    """HU (H, W) with lung at `LUNG` and soft tissue at `TISSUE`.

    Args:
        gray, nodule: as of `levels_of`.
        otherwise: whose ends are the least and the largest gray of a picture that does not show both.
    """
    values = np.asarray(gray, np.float64)
    found = levels_of(values, nodule)
    if found is None:
        low, step = float(values.min()), max(float(np.ptp(values)), 1.0)
        hu = otherwise.lower + (values - low) / step * otherwise.width
    else:
        hu = LUNG + (values - found[0]) * (TISSUE - LUNG) / (found[1] - found[0])
    return np.rint(hu.clip(-1024, 3071)).astype(np.int16)


def _muscle(values: NDArray[np.float64], span: float) -> float:
    """The gray of muscle and blood: the brighter of the histogram's modes, where fat has another one.

    Bone makes no mode, and a mode less than `BESIDE` as high as the largest does not count.
    """
    counts, edges = np.histogram(values, 256)
    width = SMOOTH * span / max(edges[1] - edges[0], 1e-9)
    smooth = gaussian_filter1d(np.pad(counts.astype(np.float64), 1), width, mode="constant")
    places, _ = find_peaks(smooth, height=BESIDE * smooth.max())
    place = min(int(places[-1]) if len(places) else int(smooth.argmax()), len(counts)) - 1
    return float(edges[max(place, 0)] + edges[max(place, 0) + 1]) / 2


logger = logging.getLogger(__name__)
PHANTOM_KINDS = ("solid", "part_solid", "spiculated")
"""Of the made phantoms: their label values 1, 2, 3."""
ANNOTATIONS, CATEGORIES = "annotations.csv", "categories.json"
EXCLUDED = "annotations_excluded.csv"
"""Beside LUNA16's annotations: findings that are no nodules to be found, and no mistakes to find."""
NODULE_LABELS = Path("labels") / "nodule"
NOMINAL_PIXEL = 0.7
"""Side in mm of a pixel of pictures, which do not say; a chest CT of 512 x 512 has 0.6 to 0.8."""
LIDC_PATTERN = r"^(?P<patient>.+?)_(?:nodule-|R_)\d+(?:-\d+)?$"
LUNG_MASKS = "seg-lungs"
"""LUNA16's folder of lung masks: headers named as the scans are."""
UNANNOTATED = ("refuse", "normal")


@dataclass(frozen=True)
class NoduleSample(Sample):
    """A scan or picture with what is known of its nodules.

    Args:
        annotations: centres in world mm and diameters; the mask's nodules where there are none.
        kinds: names of the mask's values 1, 2, ...; empty where any value is just nodule.
        single: the whole mask is one nodule, in however many pieces.
        annotated: the nodules are those of ``annotations`` even where that is empty.
        excluded: findings, as ``annotations``, that count neither as nodules nor as false positives.
        pixel_mm: side of a picture's pixel in mm.
    """

    annotations: tuple[WorldNodule, ...] = ()
    kinds: tuple[str, ...] = ()
    single: bool = False
    annotated: bool = False
    pixel_mm: float = NOMINAL_PIXEL
    excluded: tuple[WorldNodule, ...] = ()


def find_nodule_scans(
    dataset_dir: str | os.PathLike[str],
    layout: str = "auto",
    unannotated: str = "refuse",
    hu_offset: float | None = None,
    patient_pattern: str | None = None,
) -> list[NoduleSample]:
    """All scans of a data set, in a fixed order; ``patient`` is the unit of the splits.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `NODULE_LAYOUTS`, or ``auto``.
        unannotated: what a LUNA16 scan is whose series has no line in ``annotations.csv``: ``refuse``, or
            ``normal`` for a scan without nodules (LUNA16 has 287 of them).
        hu_offset: what the scans' values need to be HU, see `common.data.intensity.offset_to_hu`.
        patient_pattern: of pictures and boxes, see `common.data.patients.whose`; None for the field's ways of
            naming.
    Raises:
        UserError: missing folder, no fitting layout, no scans, a scan without its mask or annotations.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give --dataset_dir a folder of scans with nodules")
    if unannotated not in UNANNOTATED:
        raise UserError(f"unannotated {unannotated!r} is unknown; choose {' or '.join(UNANNOTATED)}")
    name = _layout_of(folder) if layout == "auto" else layout
    if name == "luna":
        if patient_pattern is not None:
            logger.warning(f"{folder}: patient_pattern is not used; each of LUNA16's scans is a patient")
        return with_hu_offset(luna(folder, unannotated), hu_offset)
    if name not in NODULE_LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of auto, {', '.join(NODULE_LAYOUTS)}")
    records = with_hu_offset(NODULE_LAYOUTS[name](folder, patient_pattern), hu_offset)
    return keep_scans_together(records, folder, patient_pattern)


def phantom(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """Made phantoms: NIfTI volumes with ``labels/nodule``."""
    return [
        NoduleSample(image, mask, stem(image), group="phantom", kinds=PHANTOM_KINDS)
        for image, mask in paired_files(folder, folder / NODULE_LABELS)
    ]


def lidc_crops(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """Crops around one nodule each: ``PATIENT_nodule-N.png`` pictures or ``PATIENT_R_N.nii.gz`` boxes.

    Of several slices of a nodule each is a picture by itself: ``PATIENT_nodule-N-SLICE.png``.
    """
    return [
        NoduleSample(
            image, mask, patient_of(image, patient_pattern or LIDC_PATTERN), group="lidc", single=True
        )
        for image, mask in paired_files(folder)
    ]


def pairs(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """``images/`` with ``labels/nodule/``, ``masks/`` or ``labels/`` of equal names.

    ``categories.json``, where there is one, lists the names of the mask values 1, 2, ...
    """
    places = (folder / place for place in (NODULE_LABELS, *MASK_FOLDERS))
    masks = next((place for place in places if place.is_dir()), None)
    return [
        NoduleSample(image, mask, patient_of(image, patient_pattern), kinds=_kinds(folder))
        for image, mask in paired_files(folder, masks)
    ]


def luna(folder: Path, unannotated: str = "refuse") -> list[NoduleSample]:
    """LUNA16: MetaImage scans at any depth, ``annotations.csv``, nodule masks (NIfTI) where there are some.

    ``annotations_excluded.csv`` is read where it lies beside ``annotations.csv``. A mask belongs to the scan
    whose name its own begins with, else to the scan with its voxel grid.
    """
    scans = sorted(path for path in folder.rglob("*.mhd") if LUNG_MASKS not in path.parent.name)
    if not scans:
        raise UserError(f"{folder}: no .mhd scans beside {ANNOTATIONS}; put LUNA16's subsets there")
    nodules = read_annotations(folder / ANNOTATIONS)
    excluded = read_annotations(folder / EXCLUDED, excluded=True) if (folder / EXCLUDED).is_file() else {}
    lonely = [scan for scan in scans if stem(scan) not in nodules]
    if lonely and unannotated == "refuse":
        raise UserError(
            f"{lonely[0]}: its series has no annotations in {folder / ANNOTATIONS} "
            f"({len(lonely)} of {len(scans)} scans); add them, or set unannotated to normal if it holds none"
        )
    masks = _masks_of(scans, sorted(path for path in folder.rglob("*") if _is_nifti(path)))
    return [
        NoduleSample(
            scan,
            masks.get(scan),
            stem(scan),
            group="luna",
            annotations=nodules.get(stem(scan), ()),
            annotated=True,
            excluded=excluded.get(stem(scan), ()),
        )
        for scan in scans
    ]


NODULE_LAYOUTS: dict[str, Callable[[Path, str | None], list[NoduleSample]]] = {
    "phantom": phantom,
    "nodule_slices": lidc_crops,
    "nodule_volumes": lidc_crops,
    "luna": lambda folder, _pattern: luna(folder),
    "pairs": pairs,
}


def _layout_of(folder: Path) -> str:
    if (folder / PHANTOM_MARKER).is_file():
        return "phantom"
    if (folder / ANNOTATIONS).is_file():
        return "luna"
    if not (folder / "images").is_dir():
        raise UserError(
            f"{folder}: no known layout; expected images/ and masks/ (or labels/nodule/) with equal file "
            f"names, or LUNA16's .mhd scans with {ANNOTATIONS}"
        )
    first = next(iter(image_files(folder / "images")), None)
    if first is None or patient_of(first, LIDC_PATTERN) == stem(first):
        return "pairs"
    return "nodule_volumes" if is_volume(first) else "nodule_slices"


def _kinds(folder: Path) -> tuple[str, ...]:
    path = folder / CATEGORIES
    if not path.is_file():
        return ()
    names = read_json(path)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f'{path}: needs a list of names for the mask values 1, 2, ...: ["solid", "spiculated"]'
        )
    return tuple(names)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith(".")


def _masks_of(scans: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """The mask of each scan that has one."""
    found: dict[Path, Path] = {}
    for mask in masks:
        named = [scan for scan in scans if mask.name.startswith(stem(scan))]
        owners = named or [scan for scan in scans if _same_grid(scan, mask)]
        if not owners or owners[0] in found:
            what = "a second mask of its scan" if owners else "fits no scan by its name or voxel grid"
            raise UserError(f"{mask}: {what}; name it SERIES_mask.nii.gz or remove it")
        found[owners[0]] = mask
    return found


def _same_grid(scan: Path, mask: Path) -> bool:
    with read_errors(scan):
        shape, affine = itk_geometry(scan)
    with read_errors(mask):
        mask_shape, mask_affine = nifti_geometry(mask)
    return shape == mask_shape and np.allclose(affine, mask_affine, atol=1e-2)


EVERY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)
BY_WINDOW, BY_LEVELS = GRAYS = "window", "levels"
"""What black and white of a picture are: the window's ends, or what makes its lung and soft tissue right."""


@dataclass(frozen=True)
class Nodule:
    """One annotated nodule.

    Args:
        centre_voxel: (slice, row, column) of the scan's arrays, as fractions.
        centre_mm: the same in mm from the first voxel's centre: ``centre_voxel * spacing``.
        diameter_mm: as annotated; of a mask the sphere's of equal volume (in pictures the disc's of equal
            area).
        category: a name of the scan's ``categories``; empty where there are none.
    """

    centre_voxel: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    category: str = ""


@dataclass(frozen=True)
class NoduleScan:
    """A CT scan, or a picture as a scan of one slice.

    Args:
        hu: int16 (Z, H, W), upright: slices from the feet up, row 0 at the front of the patient, column 0 at
            the patient's right.
        mask: uint8 (Z, H, W): 0 none, the category's number + 1 in a nodule (1 where there are none).
        spacing: mm along slices, rows and columns.
        name: unique in its set and safe as a file name.
        patient: the unit of the splits.
        nodules: in a fixed order.
        categories: names of the mask's values 1, 2, ...; may be empty.
        nominal_hu: the file has no HU; black and white stand for the ends of the window.
        excluded: findings that count neither as nodules nor as false positives; not in the mask.
    """

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    name: str
    patient: str
    nodules: tuple[Nodule, ...]
    categories: tuple[str, ...] = ()
    nominal_hu: bool = False
    excluded: tuple[Nodule, ...] = ()

    def in_mm(self, voxels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxels (..., 3) as mm from the first voxel's centre: the frame of `Nodule.centre_mm`."""
        return np.asarray(voxels, dtype=np.float64) * np.asarray(self.spacing)

    def excluded_mask(self) -> NDArray[np.uint8]:
        """uint8 {0, 1} (Z, H, W): the excluded findings as spheres of their diameters."""
        centres = np.array([finding.centre_voxel for finding in self.excluded]).reshape(-1, 3)
        diameters = [finding.diameter_mm for finding in self.excluded]
        return paint_spheres(self.hu.shape, self.spacing, centres, diameters)


def read_nodule_scan(
    sample: NoduleSample, window: str | Window | Sequence[float] = "lung", gray: str = BY_WINDOW
) -> NoduleScan:
    """Reads a scan as `common.data.nodules.find_nodule_scans` lists it.

    Args:
        sample: the record.
        window: whose ends are black and white of files that are not HU.
        gray: what the gray of a picture means: `BY_WINDOW`, or `BY_LEVELS` for pictures that were stretched
            one by one, see `common.data.nodules`.
    Raises:
        UserError: unreadable, sizes that differ, an annotation outside, a value that is no category.
    """
    limits = window_by_name(window)
    if is_volume(sample.image):
        volume = open_volume(sample.image)
        offset = volume.offset(sample.hu_offset, sample.image)
        hu = _upright(_calibrated(volume.array, limits, volume.is_hu, volume.source_range, offset))
        rows, columns, slices = volume.spacing
        spacing, nominal = (slices, rows, columns), not volume.is_hu
    else:
        picture, source_range = read_picture(sample.image)
        hu = _calibrated(picture, limits, False, source_range)[None]
        volume, spacing, nominal = None, (sample.pixel_mm,) * 3, True
        if gray == BY_LEVELS:
            hu = hu_by_levels(picture, _read_mask(sample, hu.shape)[0] > 0, limits)[None]
    mask, nodules = _truth(sample, volume, hu.shape, spacing)
    excluded = _excluded(sample, volume, spacing)
    return NoduleScan(
        hu, mask, spacing, sample.name, sample.patient, nodules, sample.kinds, nominal, excluded
    )


def nodules_in_mask(
    mask: NDArray[np.uint8], spacing: Sequence[float], kinds: Sequence[str] = (), single: bool = False
) -> tuple[Nodule, ...]:
    """The nodules of a mask (Z, H, W): pieces that touch or lie one voxel apart, or all of it as one.

    Args:
        mask: see `NoduleScan`.
        spacing: mm.
        kinds: names of the mask's values.
        single: all pieces are one nodule.
    """
    pieces, count = ((mask > 0).astype(np.int32), int(mask.any())) if single else label_pieces(mask)
    boxes = ndimage.find_objects(pieces, count)
    return tuple(
        _measured(mask[box], pieces[box] == number, box, spacing, kinds)
        for number, box in enumerate(boxes, 1)
        if box is not None
    )


def label_pieces(mask: NDArray[np.generic]) -> tuple[NDArray[np.int32], int]:
    """The pieces of a mask (Z, H, W), numbered from 1, and how many: one voxel between parts them not."""
    present = np.asarray(mask) > 0
    pieces, count = ndimage.label(ndimage.binary_dilation(present, EVERY_NEIGHBOUR), EVERY_NEIGHBOUR)
    return pieces * present, int(count)


def _measured(
    values: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    box: tuple[slice, ...],
    spacing: Sequence[float],
    kinds: Sequence[str],
) -> Nodule:
    """One nodule from its box of the mask; spikes of another value do not decide its category."""
    first = np.array([part.start for part in box])
    voxel = np.argwhere(inside).mean(axis=0) + first
    value = int(np.bincount(values[inside]).argmax())
    category = kinds[value - 1] if kinds else ""
    return _nodule(voxel, spacing, equivalent_diameter(inside, spacing, box[0] == slice(0, 1)), category)


def equivalent_diameter(inside: NDArray[np.bool_], spacing: Sequence[float], flat: bool = False) -> float:
    """Diameter in mm of the sphere with a mask's volume; ``flat``: of the disc with its area."""
    count = float(np.count_nonzero(inside))
    if flat:
        return 2 * float(np.sqrt(count * spacing[1] * spacing[2] / np.pi))
    return 2 * float(np.cbrt(0.75 * count * np.prod(spacing) / np.pi))


def _nodule(
    voxel: NDArray[np.floating], spacing: Sequence[float], diameter: float, category: str = ""
) -> Nodule:
    z, y, x = (float(value) for value in voxel)
    return Nodule((z, y, x), (z * spacing[0], y * spacing[1], x * spacing[2]), float(diameter), category)


def _truth(
    sample: NoduleSample, volume: Volume | None, shape: tuple[int, ...], spacing: Sequence[float]
) -> tuple[NDArray[np.uint8], tuple[Nodule, ...]]:
    """Mask and nodules: of the mask, of the annotations, or the mask of the one and nodules of the other."""
    if not sample.annotated or volume is None:
        mask = _read_mask(sample, shape)
        return mask, nodules_in_mask(mask, spacing, sample.kinds, sample.single)
    voxels = voxels_of(sample.annotations, volume, sample.image)
    diameters = [nodule.diameter_mm for nodule in sample.annotations]
    mask = (
        paint_spheres(shape, spacing, voxels, diameters) if sample.mask is None else _read_mask(sample, shape)
    )
    return mask, tuple(_nodule(v, spacing, d) for v, d in zip(voxels, diameters, strict=True))


def _excluded(sample: NoduleSample, volume: Volume | None, spacing: Sequence[float]) -> tuple[Nodule, ...]:
    """The findings of `EXCLUDED`."""
    if volume is None or not sample.excluded:
        return ()
    voxels = voxels_of(sample.excluded, volume, sample.image, EXCLUDED)
    return tuple(_nodule(v, spacing, f.diameter_mm) for v, f in zip(voxels, sample.excluded, strict=True))


def _read_mask(sample: NoduleSample, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    path = sample.mask
    if path is None:
        raise UserError(f"{sample.image}: has no mask of its nodules; add one of equal name")
    values = _upright(open_volume(path).array) if is_volume(path) else read_label_picture(path)[None]
    if values.shape != shape:
        raise UserError(
            f"{path}: the mask is {_size(values.shape)} but {sample.image.name} is {_size(shape)} "
            "(slices x rows x columns); export both at the same size"
        )
    return _categories(values, sample.kinds, path)


def _categories(values: np.ndarray, kinds: Sequence[str], path: Path) -> NDArray[np.uint8]:
    """The mask's values as uint8: numbers of categories, or 1 for any value where there are none."""
    if not kinds:
        return (values != 0).astype(np.uint8)
    known = (values >= 0) & (values <= len(kinds)) & (values == np.rint(values))
    if not known.all():
        names = ", ".join(f"{number} {name}" for number, name in enumerate(kinds, 1))
        raise UserError(f"{path}: {values[~known][0]:g} is no known category; expected 0 none, {names}")
    return values.astype(np.uint8)


def _calibrated(
    array: np.ndarray, window: Window, is_hu: bool, source_range: tuple[float, float], offset: float = 0.0
) -> NDArray[np.int16]:
    """HU as int16; nominal where the values are not HU. ``offset`` is added to those that are."""
    if not is_hu:
        return to_hu(to_unit(array, window, False, source_range), window)
    limits = np.iinfo(np.int16)
    if array.dtype == np.int16 and not offset:
        return array
    return np.clip(np.rint(array + np.float32(offset)), limits.min, limits.max).astype(np.int16)


def _upright(array: np.ndarray) -> np.ndarray:
    """(H, W, D) in display order as (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in shape)


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


class NoduleSliceDataset(Dataset[dict[str, Any]]):
    """Patches (1, S, S) of slices in [-1, 1] with nodule masks {0, 1}.

    All slices with nodules are kept in memory as they lie in the file, and a seeded choice of those without:
    of those with an excluded finding only where a scan has no others.
    A `SampleIndex` gives the augmented patch of that epoch; an int index always the same patch, the nodule in
    it where the slice has one. Slices smaller than S are surrounded by the window's lower end.

    Args:
        samples: the scans' records, see `common.data.nodules`.
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

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        index = visit.index if isinstance(visit, SampleIndex) else int(visit)
        hu, mask, _ = self.slices[index]
        corner = self._corner(visit)
        unit = _cut(to_unit(hu, self.window, is_hu=True), corner, self.image_size)
        label = _cut(mask, corner, self.image_size)
        if self.augment is not None and isinstance(visit, SampleIndex):
            draw = self.augment.draw(make_rng(self.seed, "augmentation", visit.epoch, visit.index))
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
        normals = _drawn(places, most, make_rng(self.seed, "normal slices", sample.name))
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
        normals = _drawn(np.flatnonzero(~has), most, make_rng(self.seed, "normal slices"))
        self.dropped += int((~has).sum()) - len(normals)
        return [slices[place] for place in sorted([*np.flatnonzero(has), *normals])]

    def _corner(self, visit: SampleIndex | int) -> tuple[int, int]:
        """First row and column of a visit's patch, perhaps negative in slices smaller than the patch."""
        index = visit.index if isinstance(visit, SampleIndex) else int(visit)
        keys = ("patch", visit.epoch, index) if isinstance(visit, SampleIndex) else ("fixed patch", index)
        random = make_rng(self.seed, *keys)
        share, row, column, which = random.random(4)
        places, size = self._places[index], self.image_size
        shape = np.array(self.slices[index].mask.shape)
        if len(places) and (share < self.balance.foreground or not isinstance(visit, SampleIndex)):
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

"""Lung nodule data sets: layouts, scans with their nodules, and patches for training a segmenter."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.transforms import ScaleIntensityRanged
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from common.data.folders import images_in, warn_of_left_out
from common.data.formats import META_SUFFIXES, NIFTI_SUFFIXES, has_suffix
from common.data.gray_levels import hu_by_levels
from common.data.image_io import for_each, read_label_picture, read_picture
from common.data.intensity import Window, to_hu, to_unit, window_by_name
from common.data.layouts import MASK_FOLDERS, PHANTOM_MARKER, paired_files
from common.data.luna16 import WorldNodule, paint_spheres, read_annotations, voxels_of
from common.data.patients import keep_scans_together, patient_of
from common.data.replay import ReplayTransforms, Transforms, flatten_transforms
from common.data.sampler import SampleIndex
from common.data.samples import Sample, stem, with_hu_offset
from common.data.transforms import WindowHUd
from common.data.volume_io import Volume, is_volume, open_volume, volume_geometry
from common.errors import UserError, read_errors
from common.files import read_json, visible_files
from common.rng import make_rng

logger = logging.getLogger(__name__)
PHANTOM_KINDS = ("solid", "part_solid", "spiculated")
"""Kinds of the phantoms' nodules, label values 1, 2, 3."""
ANNOTATIONS, CATEGORIES = "annotations.csv", "categories.json"
EXCLUDED = "annotations_excluded.csv"
"""LUNA16's findings that count neither as nodules nor as false positives."""
NODULE_LABELS = Path("labels") / "nodule"
NOMINAL_PIXEL = 0.7
"""Pixel size in mm of pictures, whose files do not have it; a chest CT of 512 x 512 has 0.6 to 0.8."""
LIDC_PATTERN = r"^(?P<patient>.+?)_(?:nodule-|R_)\d+(?:-\d+)?$"
LUNG_MASKS = "seg-lungs"
"""LUNA16's folder of lung masks, whose headers have the names of the scans."""
UNANNOTATED = ("refuse", "normal")


@dataclass(frozen=True)
class NoduleSample(Sample):
    """The files of a scan or picture and the annotations of its nodules.

    Args:
        annotations: centres in world mm and diameters.
        kinds: names of the mask values 1, 2, ...; empty if any value means nodule.
        single: the whole mask is one nodule, in any number of pieces.
        annotated: the nodules are those of ``annotations``, even if that is empty, and not those of the mask.
        excluded: findings that count neither as nodules nor as false positives.
        pixel_mm: pixel size of a picture in mm.
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
    """Finds all scans of a data set, in a fixed order; ``patient`` is the unit of the splits.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `NODULE_LAYOUTS`, or ``auto``.
        unannotated: ``refuse`` or ``normal``: a LUNA16 scan without a line in ``annotations.csv`` is an
            error, or has no nodules (LUNA16 has 287 of these).
        hu_offset: added to the values to get HU, see `common.data.intensity.offset_to_hu`.
        patient_pattern: identifies patients by file names, see `common.data.patients.whose`; None for the
            usual ways of naming.
    Raises:
        UserError: missing folder, no matching layout, no scans, a scan without mask or annotations.
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
        records = luna(folder, unannotated)
        tables = [folder / ANNOTATIONS, folder / EXCLUDED]
        warn_of_left_out(folder, [*tables, *(path for r in records for path in (r.image, r.mask))])
        return with_hu_offset(records, hu_offset)
    if name not in NODULE_LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of auto, {', '.join(NODULE_LAYOUTS)}")
    records = with_hu_offset(NODULE_LAYOUTS[name](folder, patient_pattern), hu_offset)
    if name != "phantom":
        warn_of_left_out(folder, [path for record in records for path in (record.image, record.mask)])
    return keep_scans_together(records, folder, patient_pattern)


def phantom(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """Finds phantoms: NIfTI volumes with ``labels/nodule``."""
    return [
        NoduleSample(image, mask, stem(image), group="phantom", kinds=PHANTOM_KINDS)
        for image, mask in paired_files(folder, folder / NODULE_LABELS)
    ]


def lidc_crops(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """Finds crops around one nodule each: ``PATIENT_nodule-N.png`` pictures or ``PATIENT_R_N.nii.gz`` boxes.

    Several slices of a nodule are separate pictures: ``PATIENT_nodule-N-SLICE.png``.
    """
    return [
        NoduleSample(
            image, mask, patient_of(image, patient_pattern or LIDC_PATTERN), group="lidc", single=True
        )
        for image, mask in paired_files(folder)
    ]


def pairs(folder: Path, patient_pattern: str | None = None) -> list[NoduleSample]:
    """Finds ``images/`` with ``labels/nodule/``, ``masks/`` or ``labels/`` under equal file names.

    An optional ``categories.json`` lists the names of the mask values 1, 2, ...
    """
    places = (folder / place for place in (NODULE_LABELS, *MASK_FOLDERS))
    masks = next((place for place in places if place.is_dir()), None)
    return [
        NoduleSample(image, mask, patient_of(image, patient_pattern), kinds=_kinds(folder))
        for image, mask in paired_files(folder, masks)
    ]


def luna(folder: Path, unannotated: str = "refuse") -> list[NoduleSample]:
    """Finds LUNA16: MetaImage scans at any depth, ``annotations.csv`` and optional nodule masks (NIfTI).

    ``annotations_excluded.csv`` is optional too. A mask belongs to the scan whose name begins its own, else
    to the scan with the same voxel grid.
    """
    files = visible_files(folder)
    scans = [file for file in files if has_suffix(file, META_SUFFIXES) and LUNG_MASKS not in file.parent.name]
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
    masks = _masks_of(scans, [file for file in files if has_suffix(file, NIFTI_SUFFIXES)])
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
    first = next(iter(images_in(folder / "images")), None)
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


def _masks_of(scans: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Assigns the masks to the scans."""
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
        shape, affine = volume_geometry(scan)
    with read_errors(mask):
        mask_shape, mask_affine = volume_geometry(mask)
    return shape == mask_shape and np.allclose(affine, mask_affine, atol=1e-2)


EVERY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)
BY_WINDOW, BY_LEVELS = GRAYS = "window", "levels"
"""How gray becomes HU: black and white are the ends of a window, or by `hu_by_levels`."""


@dataclass(frozen=True)
class Nodule:
    """A nodule of a scan.

    Args:
        centre_voxel: (slice, row, column) of the scan's arrays, as fractions.
        centre_mm: the same in mm from the centre of the first voxel: ``centre_voxel * spacing``.
        diameter_mm: as annotated, else of the sphere of equal volume (in pictures the disc of equal area).
        category: one of the scan's ``categories``; empty if there are none.
    """

    centre_voxel: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    category: str = ""


@dataclass(frozen=True)
class NoduleScan:
    """A CT scan with its nodules; a picture is a scan of one slice.

    Args:
        hu: int16 (Z, H, W), upright: slices from the feet up, row 0 at the front of the patient, column 0 at
            the patient's right.
        mask: uint8 (Z, H, W): 0 or the number of the category from 1 on (1 if there are no categories).
        spacing: mm along slices, rows and columns.
        name: unique in its data set and safe as a file name.
        patient: the unit of the splits.
        nodules: in a fixed order.
        categories: names of the mask values 1, 2, ...; may be empty.
        nominal_hu: the file has no HU; black and white are the ends of the window.
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
        """Converts voxels (..., 3) to mm from the centre of the first voxel, as in `Nodule.centre_mm`."""
        return np.asarray(voxels, dtype=np.float64) * np.asarray(self.spacing)

    def excluded_mask(self) -> NDArray[np.uint8]:
        """Paints the excluded findings as spheres: uint8 {0, 1} (Z, H, W)."""
        centres = np.array([finding.centre_voxel for finding in self.excluded]).reshape(-1, 3)
        diameters = [finding.diameter_mm for finding in self.excluded]
        return paint_spheres(self.hu.shape, self.spacing, centres, diameters)


def read_nodule_scan(
    sample: NoduleSample, window: str | Window | Sequence[float] = "lung", gray: str = BY_WINDOW
) -> NoduleScan:
    """Reads a scan that `find_nodule_scans` found.

    Args:
        sample: the record.
        window: its ends are black and white of files that are not in HU.
        gray: how the gray of a picture becomes HU: `BY_WINDOW`, or `BY_LEVELS` for pictures that were
            stretched one by one, see `common.data.gray_levels.hu_by_levels`.
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
    """Returns the nodules of a mask (Z, H, W): components with at most two voxels between them are one.

    Args:
        mask: see `NoduleScan`.
        spacing: mm.
        kinds: names of the mask values.
        single: the whole mask is one nodule.

    Example:
        >>> mask = np.zeros((1, 9, 9), np.uint8)
        >>> mask[0, 1:3, 1:3] = mask[0, 6:9, 6:9] = 1
        >>> [nodule.centre_voxel for nodule in nodules_in_mask(mask, spacing=(1, 1, 1))]
        [(0.0, 1.5, 1.5), (0.0, 7.0, 7.0)]
    """
    pieces, count = ((mask > 0).astype(np.int32), int(mask.any())) if single else label_pieces(mask)
    boxes = ndimage.find_objects(pieces, count)
    return tuple(
        _measured(mask[box], pieces[box] == number, box, spacing, kinds)
        for number, box in enumerate(boxes, 1)
        if box is not None
    )


def label_pieces(mask: NDArray[np.generic]) -> tuple[NDArray[np.int32], int]:
    """Labels the components of a mask (Z, H, W) from 1; merges those with at most two voxels between them."""
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
    """Measures one nodule in its box of the mask; its category is that of most voxels."""
    first = np.array([part.start for part in box])
    voxel = np.argwhere(inside).mean(axis=0) + first
    value = int(np.bincount(values[inside]).argmax())
    category = kinds[value - 1] if kinds else ""
    return _nodule(voxel, spacing, equivalent_diameter(inside, spacing, box[0] == slice(0, 1)), category)


def equivalent_diameter(inside: NDArray[np.bool_], spacing: Sequence[float], flat: bool = False) -> float:
    """Returns the diameter in mm of the sphere of equal volume; ``flat``: of the disc of equal area."""
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
    """Returns mask and nodules: from the mask alone, the annotations alone, or each from its own source."""
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
    """Returns the findings of `EXCLUDED`."""
    if volume is None or not sample.excluded:
        return ()
    voxels = voxels_of(sample.excluded, volume, sample.image, EXCLUDED)
    return tuple(_nodule(v, spacing, f.diameter_mm) for v, f in zip(voxels, sample.excluded, strict=True))


def _read_mask(sample: NoduleSample, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    path = sample.mask
    if path is None:
        raise UserError(f"{sample.image}: has no mask of its nodules; add one with the same file name")
    values = _upright(open_volume(path).array) if is_volume(path) else read_label_picture(path)[None]
    if values.shape != shape:
        raise UserError(
            f"{path}: the mask is {_size(values.shape)} but {sample.image.name} is {_size(shape)} "
            "(slices x rows x columns); export both at the same size"
        )
    return _categories(values, sample.kinds, path)


def _categories(values: np.ndarray, kinds: Sequence[str], path: Path) -> NDArray[np.uint8]:
    """Converts mask values to uint8: numbers of categories, or 1 for any value if there are none."""
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
    """Converts to int16 HU, nominal if the values are not in HU; ``offset`` is added to those that are."""
    if not is_hu:
        return to_hu(to_unit(array, window, False, source_range), window)
    limits = np.iinfo(np.int16)
    if array.dtype == np.int16 and not offset:
        return array
    return np.clip(np.rint(array + np.float32(offset)), limits.min, limits.max).astype(np.int16)


def _upright(array: np.ndarray) -> np.ndarray:
    """Converts (H, W, D) in display order to (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in shape)


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
        self._places = [np.argwhere(slice_.mask) for slice_ in self.slices]

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
    """Draws at most ``most`` of the indices, in order."""
    return places if len(places) <= most else np.sort(random.choice(places, most, replace=False))


def _cut(array: np.ndarray, corner: tuple[int, int], size: int, fill: float = 0) -> np.ndarray:
    """Returns the (size, size) part from ``corner`` on, padded with ``fill``."""
    out = np.full((size, size), fill, array.dtype)
    row, column = corner
    inside = array[max(0, row) : row + size, max(0, column) : column + size]
    top, left = max(0, -row), max(0, -column)
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out

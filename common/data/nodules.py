"""Lung nodule data sets: layouts, LUNA16's annotations, and scans with their nodules."""

from __future__ import annotations

import csv
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.hu_calibration import Calibration, GrayValues, calibrate
from common.data.image_io import check_place, check_varied, read_label_picture, read_picture, size_text
from common.data.intensity import Window, hu_by_levels, to_hu, to_unit, window_by_name
from common.data.layouts import MASK_FOLDERS, PHANTOM_MARKER, images_in, paired_files, warn_of_left_out
from common.data.mask_values import check_scale, structure_mask_of, whole_labels
from common.data.patients import keep_scans_together, patient_of
from common.data.samples import (
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    Sample,
    has_suffix,
    is_volume,
    stem,
    with_values,
)
from common.data.volume_io import Volume, lies_in_same_place, open_volume, volume_grid
from common.errors import UserError
from common.files import read_json, visible_files

logger = logging.getLogger(__name__)
ROUNDING = 1e-9
"""Relative tolerance: points on the sphere belong to it."""
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
UNKNOWN_MM = 10.0
"""Diameter of an excluded finding that is -1 in the table, as in LUNA16's evaluation script."""


class WorldNodule(NamedTuple):
    """A nodule's centre in world mm (LPS, as ITK and LUNA16 count) and its diameter in mm."""

    x: float
    y: float
    z: float
    diameter_mm: float


def read_annotations(
    path: str | os.PathLike[str], excluded: bool = False
) -> dict[str, tuple[WorldNodule, ...]]:
    """Reads the nodules of each series from an ``annotations.csv``.

    Args:
        path: the table.
        excluded: whether it is ``annotations_excluded.csv`` (findings below 3 mm, of one or two readers, or
            no nodules); unknown diameters (-1) become `UNKNOWN_MM`.
    Raises:
        UserError: unreadable, a missing column, or a line without numbers or size.
    """
    by_series: dict[str, list[WorldNodule]] = defaultdict(list)
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {missing[0]}; it needs {', '.join(COLUMNS)}")
            for row in table:
                where = f"{path}: line {table.line_num}"
                by_series[row[COLUMNS[0]]].append(_annotation(row, where, excluded))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore LUNA16's {Path(path).name}") from error
    return {series: tuple(nodules) for series, nodules in by_series.items()}


def voxels_of(
    nodules: Sequence[WorldNodule], volume: Volume, path: Path, table: str = "annotations.csv"
) -> NDArray[np.float64]:
    """Converts centres to voxels (N, 3), fractions of (slice, row, column) of the volume in display order.

    Args:
        nodules: in world mm.
        volume: the scan, with its affine.
        path, table: file of the scan and name of the table, for the message.
    Raises:
        UserError: a centre lies outside the scan.
    """
    world = np.array([(-nodule.x, -nodule.y, nodule.z, 1.0) for nodule in nodules]).reshape(-1, 4)  # RAS
    display = (world @ np.linalg.inv(volume.display_affine).T)[:, :3]  # row, column, slice
    voxels = display[:, [2, 0, 1]]
    shape = np.array(volume.array.shape)[[2, 0, 1]]
    outside = np.flatnonzero(((voxels < -0.5) | (voxels > shape - 0.5)).any(axis=1))
    if len(outside):
        nodule, voxel = nodules[outside[0]], np.rint(voxels[outside[0]]).astype(int)
        raise UserError(
            f"{path}: the annotation at ({nodule.x:g}, {nodule.y:g}, {nodule.z:g}) mm lies outside the scan "
            f"(slice, row, column {voxel.tolist()} of {shape.tolist()}); correct it in {table}"
        )
    return voxels


def paint_spheres(
    shape: Sequence[int],
    spacing: Sequence[float],
    centres: NDArray[np.float64],
    diameters_mm: Iterable[float],
) -> NDArray[np.uint8]:
    """Paints spheres: uint8 {0, 1} (Z, H, W).

    Args:
        shape, spacing: of the scan, (Z, H, W), mm.
        centres: (N, 3) voxels from `voxels_of`.
        diameters_mm: N; each sphere has at least the voxel at its centre.

    Example:
        >>> paint_spheres((1, 3, 3), (1.0, 1.0, 1.0), np.array([[0.0, 1.0, 1.0]]), [2.0])[0].tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    mask = np.zeros(tuple(shape), np.uint8)
    last = np.array(shape) - 1
    for centre, diameter in zip(centres, diameters_mm, strict=True):
        reach = diameter / 2 / np.asarray(spacing)
        first = np.clip(np.floor(centre - reach), 0, last).astype(int)
        stop = np.clip(np.ceil(centre + reach), 0, last).astype(int) + 1
        box = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        steps = np.ogrid[box]
        squares = sum(((step - c) * s) ** 2 for step, c, s in zip(steps, centre, spacing, strict=True))
        mask[box][squares <= (diameter / 2) ** 2 * (1 + ROUNDING)] = 1
        mask[tuple(np.clip(np.rint(centre), 0, last).astype(int))] = 1
    return mask


def _annotation(row: dict[str, str], where: str, excluded: bool) -> WorldNodule:
    try:
        nodule = WorldNodule(*(float(row[name]) for name in COLUMNS[1:]))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} holds no coordinates and diameter in mm; correct or remove it") from error
    if excluded and nodule.diameter_mm < 0:
        nodule = nodule._replace(diameter_mm=UNKNOWN_MM)
    if not np.isfinite(nodule).all() or nodule.diameter_mm <= 0:
        raise UserError(f"{where} has the diameter {nodule.diameter_mm:g} mm; correct or remove it")
    return nodule


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
    source_range: Sequence[float] | None = None,
    mask_threshold: float | None = None,
    ignore_value: int | Sequence[int] | None = None,
) -> list[NoduleSample]:
    """Finds all scans of a data set, in a fixed order; ``patient`` is the unit of the splits.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `NODULE_LAYOUTS`, or ``auto``.
        unannotated: ``refuse`` or ``normal``: a LUNA16 scan without a line in ``annotations.csv`` is an
            error, or has no nodules (LUNA16 has 287 of these).
        patient_pattern: see `common.data.patients.identify_patient`; None for the field's ways of naming.
        hu_offset, source_range, mask_threshold, ignore_value: see `common.data.samples.with_values`.
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
        return with_values(records, hu_offset, source_range, mask_threshold, ignore_value)
    if name not in NODULE_LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of auto, {', '.join(NODULE_LAYOUTS)}")
    records = NODULE_LAYOUTS[name](folder, patient_pattern)
    records = with_values(records, hu_offset, source_range, mask_threshold, ignore_value)
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
    candidates = (folder / candidate for candidate in (NODULE_LABELS, *MASK_FOLDERS))
    masks = next((candidate for candidate in candidates if candidate.is_dir()), None)
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
    missing = [scan for scan in scans if stem(scan) not in nodules]
    if missing and unannotated == "refuse":
        raise UserError(
            f"{missing[0]}: its series has no annotations in {folder / ANNOTATIONS} "
            f"({len(missing)} of {len(scans)} scans); add them, or set unannotated to normal if it holds none"
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
    mask_of: dict[Path, Path] = {}
    for mask in masks:
        named = [scan for scan in scans if mask.name.startswith(stem(scan))]
        owners = named or [scan for scan in scans if lies_in_same_place(volume_grid(scan), volume_grid(mask))]
        if not owners or owners[0] in mask_of:
            what = "a second mask of its scan" if owners else "fits no scan by its name or voxel grid"
            raise UserError(f"{mask}: {what}; name it SERIES_mask.nii.gz or remove it")
        mask_of[owners[0]] = mask
    return mask_of


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
        ignored: bool (Z, H, W), voxels of the mask file that are to be ignored; None for none.
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
    ignored: NDArray[np.bool_] | None = None

    def in_mm(self, voxels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Converts voxels (..., 3) to mm from the centre of the first voxel, as in `Nodule.centre_mm`."""
        return np.asarray(voxels, dtype=np.float64) * np.asarray(self.spacing)

    @property
    def has_excluded(self) -> bool:
        """Whether anything counts neither as nodule nor as background."""
        return bool(self.excluded) or self.ignored is not None

    def excluded_mask(self) -> NDArray[np.uint8]:
        """Marks excluded findings (as spheres) and ignored voxels: uint8 {0, 1} (Z, H, W)."""
        centres = np.array([finding.centre_voxel for finding in self.excluded]).reshape(-1, 3)
        diameters = [finding.diameter_mm for finding in self.excluded]
        painted = paint_spheres(self.hu.shape, self.spacing, centres, diameters)
        return painted if self.ignored is None else painted | self.ignored


def read_nodule_scan(
    sample: NoduleSample, window: str | Window | Sequence[float] = "lung", gray: str = BY_WINDOW
) -> NoduleScan:
    """Reads a scan that `find_nodule_scans` found.

    Args:
        sample: the record.
        window: its ends are black and white of files that are not in HU.
        gray: how the gray of a picture becomes HU: `BY_WINDOW`, or `BY_LEVELS` for pictures that were
            stretched one by one, see `common.data.intensity.hu_by_levels`.
    Raises:
        UserError: unreadable, constant, another size than its mask, an annotation outside, no category.
    """
    limits = window_by_name(window)
    settings = (sample.hu_offset, sample.source_range, sample.image)
    values = None if sample.mask is None else _read_mask_values(sample)
    if is_volume(sample.image):
        volume = open_volume(sample.image)
        check_varied(volume.array, sample.image)
        calibration = volume.calibrate(*settings)
        hu = _upright(_to_hu(volume.array, limits, calibration))
        rows, columns, slices = volume.spacing
        spacing = (slices, rows, columns)
    else:
        picture, own = read_picture(sample.image)
        check_varied(picture, sample.image)
        calibration = calibrate(GrayValues(picture), own, *settings)
        hu = _to_hu(picture, limits, calibration)[None]
        volume, spacing = None, (sample.pixel_mm,) * 3
        if gray == BY_LEVELS and not calibration.is_hu:
            hu = hu_by_levels(picture, _mask_of(values, sample, hu.shape)[0] > 0, limits)[None]
    mask, nodules = _truth(sample, values, volume, hu.shape, spacing)
    return NoduleScan(
        hu,
        mask,
        spacing,
        sample.name,
        sample.patient,
        nodules,
        sample.kinds,
        not calibration.is_hu,
        _excluded(sample, volume, spacing),
        _ignored(values, sample),
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
    sample: NoduleSample,
    values: np.ndarray | None,
    volume: Volume | None,
    shape: tuple[int, ...],
    spacing: Sequence[float],
) -> tuple[NDArray[np.uint8], tuple[Nodule, ...]]:
    """Returns mask and nodules: from the mask alone, the annotations alone, or each from its own source."""
    if not sample.annotated or volume is None:
        mask = _mask_of(values, sample, shape)
        return mask, nodules_in_mask(mask, spacing, sample.kinds, sample.single)
    voxels = voxels_of(sample.annotations, volume, sample.image)
    diameters = [nodule.diameter_mm for nodule in sample.annotations]
    painted = values is None
    mask = paint_spheres(shape, spacing, voxels, diameters) if painted else _mask_of(values, sample, shape)
    return mask, tuple(_nodule(v, spacing, d) for v, d in zip(voxels, diameters, strict=True))


def _excluded(sample: NoduleSample, volume: Volume | None, spacing: Sequence[float]) -> tuple[Nodule, ...]:
    """Returns the findings of `EXCLUDED`."""
    if volume is None or not sample.excluded:
        return ()
    voxels = voxels_of(sample.excluded, volume, sample.image, EXCLUDED)
    return tuple(_nodule(v, spacing, f.diameter_mm) for v, f in zip(voxels, sample.excluded, strict=True))


def _read_mask_values(sample: NoduleSample) -> np.ndarray:
    """Returns the values of the mask file, (Z, H, W), from the place of the image."""
    path = sample.mask
    assert path is not None  # as the caller made sure
    check_place(sample.image, path)
    return _upright(open_volume(path).array) if is_volume(path) else read_label_picture(path)[None]


def _mask_of(values: np.ndarray | None, sample: NoduleSample, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Converts mask values to uint8: numbers of categories, or 1 for any value if there are none."""
    path = sample.mask
    if path is None or values is None:
        raise UserError(f"{sample.image}: has no mask of its nodules; add one with the same file name")
    if values.shape != shape:
        raise UserError(
            f"{path}: the mask is {size_text(values.shape)} but {sample.image.name} is {size_text(shape)} "
            "(slices x rows x columns); export both at the same size"
        )
    threshold, ignored = sample.mask_threshold, sample.mask_ignored
    check_scale(float(values.max()), values, threshold, path, ignored)
    if not sample.kinds:
        return structure_mask_of(values, path, threshold, ignored)
    labels = whole_labels(values, path, threshold, ignored)
    if labels.max() > len(sample.kinds):
        names = ", ".join(f"{number} {name}" for number, name in enumerate(sample.kinds, 1))
        raise UserError(f"{path}: {labels.max()} is no known category; expected 0 none, {names}")
    return labels.astype(np.uint8)


def _ignored(values: np.ndarray | None, sample: NoduleSample) -> NDArray[np.bool_] | None:
    """Returns where the mask has values to ignore; None where it has none."""
    ignored = sample.mask_ignored
    voxels = None if values is None or not ignored else np.isin(np.rint(values), ignored)
    return voxels if voxels is not None and voxels.any() else None


def _to_hu(array: np.ndarray, window: Window, calibration: Calibration) -> NDArray[np.int16]:
    """Converts to int16 HU; nominal ones, by the ends of the window, if the values are not in HU."""
    if not calibration.is_hu:
        return to_hu(to_unit(array, window, False, calibration.source_range), window)
    limits = np.iinfo(np.int16)
    if array.dtype == np.int16 and not calibration.offset:
        return array
    return np.clip(np.rint(array + np.float32(calibration.offset)), limits.min, limits.max).astype(np.int16)


def _upright(array: np.ndarray) -> np.ndarray:
    """Converts (H, W, D) in display order to (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))

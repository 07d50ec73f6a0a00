"""From a folder to its list of scans with nodules: one record a volume or picture."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.folders import MASK_FOLDERS, image_files, paired_files
from common.data.layouts import PHANTOM_MARKER
from common.data.luna import WorldNodule, read_annotations
from common.data.patients import patient_of
from common.data.persons import keep_scans_together
from common.data.samples import Sample, stem, with_hu_offset
from common.data.unreadable import explained
from common.data.volume_files import NIFTI_SUFFIXES, is_volume, itk_geometry, nifti_geometry
from common.errors import UserError
from common.files import read_json

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
    with explained(scan):
        shape, affine = itk_geometry(scan)
    with explained(mask):
        mask_shape, mask_affine = nifti_geometry(mask)
    return shape == mask_shape and np.allclose(affine, mask_affine, atol=1e-2)

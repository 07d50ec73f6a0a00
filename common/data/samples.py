"""Image files by name, and `Sample`: a slice with its mask and its patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from common.data.hu_calibration import check_source_range
from common.data.mask_values import check_ignored, check_threshold

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
PAIR_SUFFIXES = (".hdr", ".hdr.gz")
"""Headers of NIfTI pairs and of Analyze 7.5; the voxels lie in ``.img`` or ``.img.gz`` beside them."""
META_SUFFIXES = (".mhd", ".mha")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES, *META_SUFFIXES, *NRRD_SUFFIXES, *DICOM_SUFFIXES)
SEGMENTATION_SUFFIX = ".seg.nrrd"
"""What 3D Slicer calls a file of labels."""
COMPOUND_SUFFIXES = (".nii.gz", ".hdr.gz", SEGMENTATION_SUFFIX)
NO_SLICES = ("dicomdir", "thumbs.db", "desktop.ini")
DICOM_MAGIC = b"DICM"
READ = "PNG, JPEG, TIFF, BMP, NIfTI, Analyze, MHD, MHA, NRRD and DICOM"


def has_suffix(path: Path, suffixes: str | tuple[str, ...]) -> bool:
    """Whether a file's name ends with one of the suffixes, in capitals or not.

    Example:
        >>> has_suffix(Path("CASE1.NII.GZ"), NIFTI_SUFFIXES)
        True
    """
    return path.name.lower().endswith(suffixes)


def is_image(path: Path) -> bool:
    """Whether a file is a picture or a volume of a known format; ``.img`` and ``.raw`` are parts of one."""
    return has_suffix(path, PICTURE_SUFFIXES) or has_suffix(path, VOLUME_SUFFIXES) or is_dicom_file(path)


def is_volume(path: Path) -> bool:
    """Whether ``path`` is a volume: by its suffix, as a DICOM file of any name, or as a folder (a series).

    Example:
        >>> is_volume(Path("case1.nrrd")), is_volume(Path("case1_012.png"))
        (True, False)
    """
    if has_suffix(path, VOLUME_SUFFIXES):
        return True
    return not has_suffix(path, PICTURE_SUFFIXES) and (path.is_dir() or is_dicom_file(path))


def is_dicom_file(file: Path) -> bool:
    """Whether a file is DICOM by its suffix, or, under any other name, by the mark after its preamble."""
    if has_suffix(file, DICOM_SUFFIXES):
        return True
    if file.name.lower() in NO_SLICES or has_suffix(file, (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)):
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == DICOM_MAGIC
    except OSError:
        return False


# The eight flips and rotations of the square, applied to (H, W, ...) arrays. Rotations are counter-clockwise.
ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda a: a,
    "rot90": lambda a: np.rot90(a, 1, axes=(0, 1)),
    "rot180": lambda a: np.rot90(a, 2, axes=(0, 1)),
    "rot270": lambda a: np.rot90(a, 3, axes=(0, 1)),
    "flip_lr": lambda a: np.flip(a, axis=1),
    "flip_ud": lambda a: np.flip(a, axis=0),
    "transpose": lambda a: np.swapaxes(a, 0, 1),
    "anti_transpose": lambda a: np.rot90(np.swapaxes(a, 0, 1), 2, axes=(0, 1)),
}
INVERSE_ORIENTATIONS: dict[str, str] = {name: name for name in ORIENTATIONS} | {
    "rot90": "rot270",
    "rot270": "rot90",
}


@dataclass(frozen=True)
class Sample:
    """One axial slice with its mask. Data sets open no files but those of their samples.

    Args:
        image: CT file, or the folder of a DICOM series.
        mask: mask or label file (or series folder); None for unconditional sets.
        patient: patient or scan id, the unit of the splits.
        index: axial slice of a volume, counted from the feet; None for 2-D files.
        orientation: key of `ORIENTATIONS` that brings a 2-D file upright (image and mask alike).
        group: source within the set ("pseudo", "doctor", "phantom"), reported apart.
        mask_values: values that mean lesion; None for any non-zero value.
        mask_threshold: for soft masks: a value of at least this is lesion.
        mask_background: values that are expected beside ``mask_values`` and mean no lesion.
        mask_ignored: values to ignore, which are no lesion whatever the other three say.
        person: set where several patient ids (scans) are one person; the splits keep them together.
        site: where the scan comes from, if there are several sources: the splits spread each over all parts.
        category: class of the whole image ("covid", "severe"), where there are classes.
        hu_offset: what to add to a volume's values to get HU, see `common.data.hu_calibration.offset_to_hu`.
        source_range: black and white of an image that is not in HU; None for its type's full range.

    Example:
        >>> sample = Sample(Path("images/case1.nii.gz"), Path("masks/case1.nii.gz"), "case1", index=12)
        >>> sample.name, sample.unit
        ('case1-z012', 'case1')
    """

    image: Path
    mask: Path | None
    patient: str
    index: int | None = None
    orientation: str = "identity"
    group: str = ""
    mask_values: tuple[int, ...] | None = None
    mask_threshold: float | None = None
    mask_background: tuple[int, ...] = (0,)
    mask_ignored: tuple[int, ...] = ()
    person: str = ""
    site: str = ""
    category: str = ""
    hu_offset: float | None = None
    source_range: tuple[float, float] | None = None

    @property
    def unit(self) -> str:
        """What the splits keep together: the person where one is known, else the patient."""
        return self.person or self.patient

    @property
    def name(self) -> str:
        """Unique within its set and safe as a file name: ``group-stem`` or ``group-stem-z012``."""
        parts = [self.group, quote(stem(self.image), safe="")]
        if self.index is not None:
            parts.append(f"z{self.index:03d}")
        return "-".join(part for part in parts if part)


AnySample = TypeVar("AnySample", bound=Sample)


def with_values(
    samples: Sequence[AnySample],
    hu_offset: float | None = None,
    source_range: Sequence[float] | None = None,
    mask_threshold: float | None = None,
    ignore_value: int | Sequence[int] | None = None,
) -> list[AnySample]:
    """Returns the samples, each with what the user says of the values in its files.

    Args:
        hu_offset, source_range: of images, see `Sample`.
        mask_threshold: of masks, in place of the layout's own convention; None keeps that.
        ignore_value: one or several values of masks that count as background.
    Raises:
        UserError: a setting of the wrong type.

    Example:
        >>> with_values([Sample(Path("a.png"), Path("m.png"), "a")], ignore_value=255)[0].mask_ignored
        (255,)
    """
    changes: dict[str, Any] = {"hu_offset": hu_offset, "mask_ignored": check_ignored(ignore_value)}
    if source_range is not None:
        changes["source_range"] = check_source_range(source_range)
    if mask_threshold is not None:
        changes |= {"mask_threshold": check_threshold(mask_threshold), "mask_values": None}
    return [replace(sample, **changes) for sample in samples]


def stem(path: Path) -> str:
    """The file's name without its suffix, of which ``.nii.gz`` is one; a folder's whole name.

    Example:
        >>> stem(Path("case1.v2.NII.GZ")), stem(Path("case2.seg.nrrd"))
        ('case1.v2', 'case2')
    """
    lowered = path.name.lower()
    for suffix in COMPOUND_SUFFIXES:
        if lowered.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name if path.is_dir() else path.stem


def orient(array: np.ndarray, orientation: str) -> np.ndarray:
    """Brings a file's (H, W, ...) array upright; the result is contiguous.

    Args:
        orientation: a key of `ORIENTATIONS`.

    Example:
        >>> orient(np.array([[1, 2], [3, 4]]), "rot90").tolist()
        [[2, 4], [1, 3]]
    """
    return np.ascontiguousarray(ORIENTATIONS[orientation](array))


def restore_orientation(array: np.ndarray, orientation: str) -> np.ndarray:
    """The inverse of `orient`: from upright back to the file's own axes.

    Example:
        >>> restore_orientation(np.array([[2, 4], [1, 3]]), "rot90").tolist()
        [[1, 2], [3, 4]]
    """
    return orient(array, INVERSE_ORIENTATIONS[orientation])

"""Which files are images, by their names, or by their first bytes where DICOM files have no suffix."""

from __future__ import annotations

from pathlib import Path

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

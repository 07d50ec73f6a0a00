"""Volume files as they lie on disk: NIfTI (nibabel), MHD/MHA and DICOM (ITK through MONAI's reader)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from common.data.unreadable import explained
from common.errors import UserError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
META_SUFFIXES = (".mhd", ".mha")
DICOM_SUFFIXES = (".dcm",)
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *META_SUFFIXES, *DICOM_SUFFIXES)
# A chest CT has about 2e8 voxels; a broken header can ask for anything.
MOST_VOXELS = 2**31
CHUNK = 2**22


class VolumeFile(NamedTuple):
    """A volume in its file's own axis order: array (X, Y, Z), affine to world mm (RAS)."""

    array: np.ndarray
    affine: np.ndarray
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None


def is_volume(path: Path) -> bool:
    """Whether ``path`` names a volume: by suffix, or a folder (a DICOM series)."""
    return path.name.lower().endswith(VOLUME_SUFFIXES) or path.is_dir()


def read_volume_file(path: Path) -> VolumeFile:
    """Reads a volume without touching its axis order.

    Raises:
        UserError: unreadable or not a 3-D volume.
    """
    with explained(path):
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return _read_nifti(path)
        if path.name.lower().endswith(META_SUFFIXES):
            _check_meta_image(path)
        return _read_itk(path)


def nifti_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(X, Y, Z) extent and affine of a NIfTI file, from its header alone. Raises as nibabel does."""
    image = _open_nifti(path)
    x, y, z = (*image.shape, 1, 1)[:3]
    return (int(x), int(y), int(z)), np.asarray(image.affine, dtype=np.float64)


def _open_nifti(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError("not a NIfTI image")
    _check_shape(tuple(int(extent) for extent in image.shape), path)
    return image


def _read_nifti(path: Path) -> VolumeFile:
    image = _open_nifti(path)
    shape = tuple(int(extent) for extent in image.shape)
    if path.name.lower().endswith(".gz"):
        _check_gzip(path)
    array = np.asanyarray(image.dataobj)
    if array.dtype.fields is not None or np.iscomplexobj(array):
        raise UserError(f"{path}: holds colours or complex numbers; save one gray value per voxel")
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_affine(affine)
    return VolumeFile(array.reshape(shape[:3]), affine, shape, image.header.copy())


def _check_gzip(path: Path) -> None:
    """Reads to the checksum at the end of the file, which nibabel never does."""
    with gzip.open(path) as stream:
        while stream.read(CHUNK):
            pass


def _read_itk(path: Path) -> VolumeFile:
    """MHD, MHA, a DICOM file or a DICOM series folder; ITK applies DICOM's rescale slope and intercept."""
    import itk
    from monai.data.image_reader import ITKReader

    itk.ProcessObject.SetGlobalWarningDisplay(False)
    if path.is_dir():
        _check_series(path)
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(path))
    _check_shape(tuple(array.shape), path)
    affine = np.asarray(meta["affine"], dtype=np.float64)
    _check_affine(affine)
    return VolumeFile(np.asarray(array), affine, tuple(array.shape), None)


def _check_shape(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) > 3 and set(shape[3:]) != {1}:
        raise UserError(
            f"{path}: has {len(shape)} dimensions {shape}; split it into 3-D volumes, one file each"
        )
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape) > MOST_VOXELS:
        raise ValueError(f"its shape {shape} makes no sense")


def _check_affine(affine: np.ndarray) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ValueError("its affine is singular or not finite")


def _check_series(folder: Path) -> None:
    """One series in the folder: ITK would take the first of several in silence."""
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    series = list(names.GetSeriesUIDs())
    if not series:
        raise UserError(f"{folder}: no DICOM series in the folder; put the slices of one series there")
    if len(series) > 1:
        raise UserError(f"{folder}: {len(series)} DICOM series in one folder; keep one series per folder")
    found, files = len(names.GetFileNames(series[0])), _dicom_files(folder)
    if found < len(files):
        raise UserError(
            f"{folder}: {len(files) - found} of {len(files)} files are not readable as DICOM; restore them"
        )


def _dicom_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def _check_meta_image(path: Path) -> None:
    """Missing bytes of an MHD's data file: ITK fills them with zeros in silence."""
    if path.suffix.lower() != ".mhd":
        return
    header = _meta_header(path)
    data = path.parent / header.get("ElementDataFile", "")
    if header.get("ElementDataFile", "LOCAL").upper().startswith(("LOCAL", "LIST")) or "%" in data.name:
        return
    if not data.is_file():
        raise UserError(f"{path}: its data file {data.name} is missing; put it beside the header")
    expected = int(header.get("CompressedDataSize", "0")) if _compressed(header) else _raw_bytes(header)
    if data.stat().st_size < expected:
        raise ValueError(f"its data file {data.name} has {data.stat().st_size} of {expected} bytes")
    if _compressed(header):
        _check_compressed(data)


def _check_compressed(data: Path) -> None:
    """Decompresses to the checksum: ITK fills what it cannot decompress with whatever is in memory."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib's or gzip's header
    with data.open("rb") as file:
        while chunk := file.read(CHUNK):
            stream.decompress(chunk)
    if not stream.eof:
        raise ValueError(f"its data file {data.name} ends early")


def _meta_header(path: Path) -> dict[str, str]:
    """The ``Key = value`` lines of an MHD file."""
    lines = path.read_bytes()[:65536].decode("latin-1").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _compressed(header: dict[str, str]) -> bool:
    return header.get("CompressedData", "False").lower() == "true"


_ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}


def _raw_bytes(header: dict[str, str]) -> int:
    kind = header.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if kind not in _ELEMENT_BYTES:
        return 0
    return math.prod(int(extent) for extent in header.get("DimSize", "0").split()) * _ELEMENT_BYTES[kind]

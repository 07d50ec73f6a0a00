"""Volume files as they lie on disk: NIfTI (nibabel), MHD/MHA and DICOM (ITK through MONAI's reader)."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from nibabel.volumeutils import apply_read_scaling

from common.data.meta_image import META_SUFFIXES, check_meta_image, meta_data_files, meta_header
from common.data.unreadable import explained
from common.errors import UserError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
DICOM_SUFFIXES = (".dcm",)
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *META_SUFFIXES, *DICOM_SUFFIXES)
# A chest CT has about 2e8 voxels; a broken header can ask for anything.
MOST_VOXELS = 2**31
# Compressed bytes at a time: deflate packs up to a thousand to one.
GZIP_CHUNK = 2**18
GZIP = zlib.MAX_WBITS | 16
# ITK loads its modules when they are first used, which two threads must not do at once.
_ITK = threading.Lock()


class VolumeFile(NamedTuple):
    """A volume in its file's own axis order: array (X, Y, Z), affine to world mm (RAS).

    ``has_spacing`` is False where the header gives no voxel size, for which 1 mm is then taken.
    """

    array: np.ndarray
    affine: np.ndarray
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None
    has_spacing: bool = True


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
            check_meta_image(path)
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
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == "c":
        raise UserError(f"{path}: holds colours or complex numbers; save one gray value per voxel")
    shape = tuple(int(extent) for extent in image.shape)
    stored = cast(ArrayProxy, image.dataobj)
    array = _decompressed(path, stored) if path.name.lower().endswith(".gz") else np.asanyarray(stored)
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_affine(affine)
    known = _has_voxel_size(path, image)
    return VolumeFile(array.reshape(shape[:3]), affine, shape, image.header.copy(), known)


def _has_voxel_size(path: Path, image: nib.Nifti1Image) -> bool:
    """Whether the header as it lies in the file has one: nibabel turns missing ones into 1 mm."""
    with ImageOpener(str(path)) as file:
        header = type(image.header).from_fileobj(file, check=False)
    return bool(header["sform_code"] > 0 or (header["pixdim"][1 : min(image.ndim, 3) + 1] != 0).all())


def _decompressed(path: Path, stored: ArrayProxy) -> np.ndarray:
    """The scaled voxels of a .nii.gz in one pass that also reads the checksum, as nibabel does not."""
    array = np.empty(stored.shape, stored.dtype, order="F")
    place, whole = -int(stored.offset), array.nbytes
    voxels = array.reshape(-1, order="F").view(np.uint8)  # shares the memory
    for chunk in gunzip(path):
        part = chunk[max(0, -place) : max(0, whole - place)]
        start = max(0, place)
        voxels[start : start + len(part)] = np.frombuffer(part, np.uint8)
        place += len(chunk)
    if place < whole:
        raise ValueError(f"its voxels take {whole} bytes but there are {max(0, place)}")
    return apply_read_scaling(array, np.float64(stored.slope), np.float64(stored.inter))


def gunzip(path: Path) -> Iterator[bytes]:
    """The decompressed content in pieces, checked to the end; several gzip members are read as one.

    Raises:
        zlib.error, ValueError: damaged or cut short.
    """
    stream = zlib.decompressobj(GZIP)
    with path.open("rb") as file:
        while chunk := file.read(GZIP_CHUNK):
            while chunk := chunk.lstrip(b"\0") if stream.eof else chunk:  # zeros may pad a member's end
                if stream.eof:
                    stream = zlib.decompressobj(GZIP)
                yield stream.decompress(chunk)
                chunk = stream.unused_data
    if not stream.eof:
        raise ValueError("compressed file ended before the end-of-stream marker was reached")


def itk_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(X, Y, Z) extent and affine of what ITK reads, from headers alone. Raises as ITK does.

    Of a DICOM folder every file counts as a slice, and the affine's translation is its first file's.
    """
    import itk

    first = _dicom_files(path)[0] if path.is_dir() else path
    with _ITK:
        header = itk.ImageIOFactory.CreateImageIO(str(first), itk.CommonEnums.IOFileMode_ReadMode)
        header.SetFileName(str(first))
        header.ReadImageInformation()
        axes = header.GetNumberOfDimensions()
        extent = [header.GetDimensions(axis) for axis in range(axes)]
        columns = [np.multiply(header.GetDirection(axis), header.GetSpacing(axis)) for axis in range(axes)]
        origin = [header.GetOrigin(axis) for axis in range(axes)]
    affine = np.eye(4)
    for axis, column in enumerate(columns[:3]):
        affine[: min(axes, 3), axis] = column[:3]
    affine[: min(axes, 3), 3] = origin[:3]
    x, y, z = (*extent[:2], len(_dicom_files(path))) if path.is_dir() else (*extent, 1, 1)[:3]
    return (int(x), int(y), int(z)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def source_parts(path: Path) -> list[Path]:
    """The files that a volume or picture consists of: a series' slices; an MHD header and its data, if there.

    Raises:
        OSError: a folder or MHD header cannot be read.
    """
    if path.is_dir():
        return _dicom_files(path)
    data = meta_data_files(path) if path.suffix.lower() == ".mhd" else []
    return [path, *(file for file in data if file.is_file())]


def _read_itk(path: Path) -> VolumeFile:
    """MHD, MHA, a DICOM file or a DICOM series folder; ITK applies DICOM's rescale slope and intercept."""
    import itk
    from monai.data.image_reader import ITKReader

    with _ITK:
        itk.ProcessObject.SetGlobalWarningDisplay(False)
        if path.is_dir():
            _check_series(path)
        reader = ITKReader()
        array, meta = reader.get_data(reader.read(path))
    _check_shape(tuple(array.shape), path)
    affine = np.asarray(meta["affine"], dtype=np.float64)
    _check_affine(affine)
    known = not path.name.lower().endswith(META_SUFFIXES) or "ElementSpacing" in meta_header(path)
    return VolumeFile(np.asarray(array), affine, tuple(array.shape), None, known)


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

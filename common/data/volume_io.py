"""Volume files: NIfTI and Analyze by nibabel, MHD, MHA and NRRD by MONAI's ITKReader, DICOM by pydicom."""

from __future__ import annotations

import logging
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.volumeutils import apply_read_scaling

from common.data.dicom_io import ITK_LOCK, dicom_files, find_single_series, read_series
from common.data.formats import (
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    PAIR_SUFFIXES,
    has_suffix,
    is_volume,
)
from common.data.geometry import SAME_PLACE_VOXELS, Grid, greatest_offset
from common.data.hu_calibration import Calibration, GrayValues, calibrate, nominal_range
from common.data.intensity import EIGHT_BIT_WHITE
from common.errors import UserError, read_errors
from common.files import atomic_write
from common.provenance import Provenance

_warned: set[Path] = set()
CHUNK = 2**22
HEADER_BYTES = 65536


def check_meta_image(path: Path) -> None:
    """Missing bytes of an MHD's data file or of an MHA: ITK fills them with zeros in silence."""
    header = header_fields(path)
    if 0.0 in map(float, header.get("ElementSpacing", "").split()):
        raise UserError(f"{path}: its header gives a voxel size of 0 mm; write the true ElementSpacing there")
    name = header.get("ElementDataFile", "LOCAL")
    if name.upper().startswith("LIST") or "%" in name:
        return
    data, start = (path, _voxels_start(path)) if name.upper() == "LOCAL" else (path.parent / name, 0)
    if not data.is_file():
        raise UserError(f"{path}: its data file {data.name} is missing; put it beside the header")
    expected = int(header.get("CompressedDataSize", "0")) if _compressed(header) else _raw_bytes(header)
    if data.stat().st_size - start < expected:
        raise ValueError(f"{data.name} holds {data.stat().st_size - start} of {expected} bytes of voxels")
    if _compressed(header):
        _check_compressed(data, start)


META_FIELDS = ("NDims", "DimSize", "ElementType", "ElementDataFile")


def _check_meta_header(path: Path) -> None:
    """ITK would write several lines to the terminal before it fails."""
    missing = [name for name in META_FIELDS if name not in header_fields(path)]
    if missing:
        raise ValueError(f"its header has no {', '.join(missing)}")


def _voxels_start(path: Path) -> int:
    """The first byte after the line of an MHA's header that says that its voxels follow."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    return content.find(b"\n", content.find(b"ElementDataFile")) + 1


def data_files(path: Path) -> list[Path]:
    """The files with the voxels of an MHD or NHDR: one, or all that it lists or gives a pattern of."""
    header = header_fields(path)
    name = header.get("ElementDataFile") or header.get("data file") or header.get("datafile") or "LOCAL"
    if name.upper().startswith("LIST"):
        listed = (line.strip() for line in _lines(path))
        return [path.parent / line for line in listed if line and not re.search("[=:]|^#|^NRRD", line)]
    if "%" in name:  # "slice%03d.raw 1 90 1"
        pattern = name.split()[0]
        return sorted(path.parent.glob(f"{pattern.partition('%')[0]}*{Path(pattern).suffix}"))
    return [] if name.upper() == "LOCAL" else [path.parent / name]


def _check_compressed(data: Path, start: int) -> None:
    """Decompresses to the checksum: ITK fills what it cannot decompress with whatever is in memory."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib's or gzip's header
    with data.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            stream.decompress(chunk)
    if not stream.eof:
        raise ValueError(f"{data.name} ends early")


def header_fields(path: Path) -> dict[str, str]:
    """The ``Key = value`` lines of a MetaImage header, or the ``key: value`` lines of a NRRD header."""
    header: dict[str, str] = {}
    meta = has_suffix(path, META_SUFFIXES)
    for line in _lines(path):
        key, found, value = line.partition("=" if meta else ": ")
        if not meta and not line:  # the voxels begin
            break
        if found and "ElementDataFile" not in header:
            header[key.strip()] = value.strip()
    return header


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES).decode("latin-1").splitlines()


def _compressed(header: dict[str, str]) -> bool:
    return header.get("CompressedData", "False").lower() == "true"


_ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}


def _raw_bytes(header: dict[str, str]) -> int:
    kind = header.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if kind not in _ELEMENT_BYTES:
        return 0
    return math.prod(int(extent) for extent in header.get("DimSize", "0").split()) * _ELEMENT_BYTES[kind]


# A chest CT has about 2e8 voxels; a broken header can ask for anything.
MOST_VOXELS = 2**31
# Compressed bytes at a time: deflate packs up to a thousand to one.
GZIP_CHUNK = 2**18
GZIP = zlib.MAX_WBITS | 16


NIBABEL_SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES)
PAIRS = (nib.Nifti1Pair, nib.Nifti2Pair, nib.Spm2AnalyzeImage, nib.Spm99AnalyzeImage, nib.AnalyzeImage)
NIFTI2_BYTES = 540
SIDES = "Analyze 7.5 does not say which side is which; its first axis is taken to run to the patient's left"
ITK_SUFFIXES = (*META_SUFFIXES, *NRRD_SUFFIXES)
logger = logging.getLogger(__name__)


class VolumeFile(NamedTuple):
    """A volume in its file's own axis order: array (X, Y, Z), affine to world mm (RAS).

    ``has_spacing`` is False where the header gives no voxel size, for which 1 mm is then taken.
    """

    array: np.ndarray
    affine: np.ndarray
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None
    has_spacing: bool = True


def read_volume_file(path: Path) -> VolumeFile:
    """Reads a volume without touching its axis order.

    Raises:
        UserError: unreadable or not a 3-D volume.
    """
    with read_errors(path):
        if has_suffix(path, NIBABEL_SUFFIXES):
            return _read_nifti(path)
        if has_suffix(path, ITK_SUFFIXES):
            if has_suffix(path, META_SUFFIXES):
                check_meta_image(path)
            return _read_itk(path)
        array, affine, has_spacing = read_series(path)
        _check_shape(array.shape, path)
        _check_affine(affine)
        return VolumeFile(array, affine, array.shape, None, has_spacing)


def volume_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(X, Y, Z) extent and affine (RAS) of a volume, from headers alone. Raises as its reader does."""
    if has_suffix(path, NIBABEL_SUFFIXES):
        image = _open_nifti(path)
        x, y, z = (*image.shape, 1, 1)[:3]
        return (int(x), int(y), int(z)), np.asarray(image.affine, dtype=np.float64)
    if has_suffix(path, ITK_SUFFIXES):
        return _itk_geometry(path)
    series = find_single_series(path)
    return series.shape, series.affine


def _voxel_file(path: Path) -> Path:
    """The file with the voxels of a NIfTI file or of the header of a pair."""
    if not has_suffix(path, PAIR_SUFFIXES):
        return path
    name = path.name[: path.name.lower().rindex(".hdr")]
    beside = [file for file in path.parent.iterdir() if file.name.startswith(name)]
    ends = (f"{name}.img".lower(), f"{name}.img.gz".lower())
    found = sorted(file for file in beside if file.name.lower() in ends)
    if not found:
        raise UserError(
            f"{path}: its voxels, {name}.img or {name}.img.gz, are missing; put them beside the header"
        )
    return found[0]


def _placement(path: Path) -> Path:
    """Where SPM writes the affine of an Analyze pair."""
    return path.with_name(f"{path.name[: path.name.lower().rindex('.hdr')]}.mat")


def _open_nifti(path: Path) -> nib.AnalyzeImage:
    """A NIfTI file, or a NIfTI or Analyze 7.5 pair; `nib.load` wants both files of one compressed or none."""
    if has_suffix(path, PAIR_SUFFIXES):
        with ImageOpener(str(path)) as file:
            start = file.read(NIFTI2_BYTES)
        kind = next((kind for kind in PAIRS if kind.header_class.may_contain_header(start)), None)
        if kind is None:
            raise ValueError("no header of NIfTI or Analyze 7.5")
        files = {"header": path, "image": _voxel_file(path), "mat": _placement(path)}
        image = kind.from_file_map({name: nib.FileHolder(str(file)) for name, file in files.items()})
    else:
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
    stored, file = cast(ArrayProxy, image.dataobj), _voxel_file(path)
    array = _decompressed(file, stored) if has_suffix(file, ".gz") else np.asanyarray(stored)
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_affine(affine)
    header = image.header.copy() if isinstance(image, nib.Nifti1Image) else None
    if not isinstance(image, nib.Nifti1Pair) and not _placement(path).is_file():
        logger.warning("%s: %s", path, SIDES)
    _warn_of_two_places(path, image, affine)
    return VolumeFile(array.reshape(shape[:3]), affine, shape, header, _has_voxel_size(path, image))


def _warn_of_two_places(path: Path, image: nib.AnalyzeImage, affine: np.ndarray) -> None:
    """Warns of a header whose qform and sform say different places; nibabel takes the sform."""
    if path in _warned or not isinstance(image, nib.Nifti1Pair):
        return
    header = image.header
    if not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return
    x, y, z = (*image.shape, 1, 1)[:3]
    other = np.asarray(image.get_qform(), dtype=np.float64)
    sform, qform = (Grid(path, (int(x), int(y), int(z)), place, place) for place in (affine, other))
    offset = greatest_offset(sform, qform)
    if offset > SAME_PLACE_VOXELS * 10:  # qforms are in single precision and have no shear
        _warned.add(path)
        logger.warning(
            f"{path}: its qform and sform differ by up to {offset:.3g} voxels; the sform is taken ({sform})"
        )


def _has_voxel_size(path: Path, image: nib.AnalyzeImage) -> bool:
    """Whether the header as it lies in the file has one: nibabel turns missing ones into 1 mm."""
    with ImageOpener(str(path)) as file:
        header = cast(Any, type(image.header)).from_fileobj(file, check=False)
    placed = "sform_code" in header and header["sform_code"] > 0
    return bool(placed or (header["pixdim"][1 : min(image.ndim, 3) + 1] != 0).all())


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


def _itk_io(path: Path) -> Any:
    """ITK's reader of a file, with its header read. By its suffix ITK would not know ``.MHD`` in capitals."""
    import itk

    if has_suffix(path, META_SUFFIXES):
        _check_meta_header(path)
    reader = itk.MetaImageIO.New() if has_suffix(path, META_SUFFIXES) else itk.NrrdImageIO.New()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{path}: holds {reader.GetNumberOfComponents()} values in each voxel (colours, or segments that "
            "overlap); save one gray value or label (3D Slicer: export the segments as a label map)"
        )
    return reader


def _itk_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    with ITK_LOCK:
        header = _itk_io(path)
        axes = header.GetNumberOfDimensions()
        extent = [header.GetDimensions(axis) for axis in range(axes)]
        columns = [np.multiply(header.GetDirection(axis), header.GetSpacing(axis)) for axis in range(axes)]
        origin = [header.GetOrigin(axis) for axis in range(axes)]
    affine = np.eye(4)
    for axis, column in enumerate(columns[:3]):
        affine[: min(axes, 3), axis] = column[:3]
    affine[: min(axes, 3), 3] = origin[:3]
    x, y, z = (*extent, 1, 1)[:3]
    return (int(x), int(y), int(z)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def source_parts(path: Path) -> list[Path]:
    """The files that a volume or picture consists of: a series' slices; a header and its data, if there.

    Raises:
        OSError: a folder or header cannot be read.
    """
    if path.is_dir():
        return dicom_files(path)
    if has_suffix(path, PAIR_SUFFIXES):
        with suppress(UserError):
            parts = [path, _voxel_file(path), _placement(path)]
            return [part for part in parts if part.is_file()]
    data = data_files(path) if has_suffix(path, (".mhd", ".nhdr")) else []
    return [path, *(file for file in data if file.is_file())]


def _read_itk(path: Path) -> VolumeFile:
    """Reads an MHD, MHA or NRRD file."""
    import itk
    from monai.data.image_reader import ITKReader
    from monai.data.utils import to_affine_nd

    with ITK_LOCK:
        itk.ProcessObject.SetGlobalWarningDisplay(False)
        reader = ITKReader(imageio=_itk_io(path))
        array, meta = reader.get_data(reader.read(path))
    _check_shape(tuple(array.shape), path)
    affine = np.asarray(to_affine_nd(3, meta["affine"]), dtype=np.float64)  # a 2-D file's is 3 x 3
    _check_affine(affine)
    sizes = ("ElementSpacing", "spacings", "space directions")
    known = any(name in header_fields(path) for name in sizes)
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


__all__ = [
    "Volume",
    "is_volume",
    "open_volume",
    "volume_depth",
    "volume_shape",
    "write_nifti",
]

# Rows run to Posterior, columns to the patient's Left, slices to Superior: radiological display, feet first.
DISPLAY_AXES = ("P", "L", "S")
CACHED_VOLUMES = 4


@dataclass(frozen=True)
class Volume:
    """A volume brought to display order.

    Attributes:
        array: (H, W, D) in the file's number type; rows to posterior, columns to the patient's left, slices
            from the feet up.
        affine: 4 x 4, the file's own voxels to world mm (RAS).
        spacing: mm along rows, columns, slices of ``array``.
        is_hu: whether values are HU: all but volumes that lie within 0..255 or 0..1.
        source_range: black and white where values are not HU.
        has_spacing: False where the file gives no voxel size; ``spacing`` is then 1 mm.
        values: summary of all voxels; None of what was not read from a file.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    is_hu: bool
    source_range: tuple[float, float]
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None = field(default=None, repr=False)
    has_spacing: bool = True
    values: GrayValues | None = field(default=None, repr=False)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Volume:
        """Reads NIfTI, Analyze, MHD, MHA, NRRD, a DICOM file or the folder of a DICOM series.

        Raises:
            UserError: unreadable, not a 3-D volume, non-finite, constant, or with an unusable affine.
        """
        source = Path(path)
        content = read_volume_file(source)
        spatial = content.array.reshape(
            (*content.array.shape[:3], *[1] * (3 - content.array.ndim))
        )  # (X, Y, Z)
        with read_errors(source):
            array = apply_orientation(spatial, _to_display(content.affine))
        _check_values(array, source)
        nominal = nominal_range(array)
        return cls(
            array=np.asarray(array),
            affine=content.affine,
            spacing=_spacing(content),
            is_hu=nominal is None,
            source_range=nominal or (0.0, EIGHT_BIT_WHITE),
            file_shape=content.file_shape,
            header=content.header,
            has_spacing=content.has_spacing,
            values=GrayValues(array),
        )

    def calibrate(
        self,
        hu_offset: float | None,
        source_range: Sequence[float] | None,
        source: Path,
        hint: str = "",
    ) -> Calibration:
        """Decides what the values of an image mean. Not for labels, which have no air.

        Args:
            hu_offset, source_range, source, hint: see `common.data.hu_calibration.calibrate`.
        Raises:
            UserError: the values cannot be HU and nothing says what they are, or they are nearly black.
        """
        values = self.values or GrayValues(self.array)
        own = None if self.is_hu else self.source_range
        return calibrate(values, own, hu_offset, source_range, source, hint)

    def grid(self, file: Path) -> Grid:
        """Returns where the voxels of the volume that was read from ``file`` lie."""
        height, width, depth = self.array.shape
        return Grid(file, (height, width, depth), self.display_affine, self.affine)

    @property
    def depth(self) -> int:
        """Number of axial slices."""
        return int(self.array.shape[2])

    @property
    def display_affine(self) -> np.ndarray:
        """4 x 4: (row, column, slice) of ``array`` to world mm (RAS)."""
        return _display_affine(self.affine, (*self.file_shape[:3], *[1] * (3 - len(self.file_shape))))

    def restore(self, stack: np.ndarray) -> np.ndarray:
        """A (H, W, D) stack in display order, back in the file's own axis order and shape."""
        back = ornt_transform(axcodes2ornt(DISPLAY_AXES), io_orientation(self.affine))
        return apply_orientation(np.asarray(stack), back).reshape(self.file_shape)


def write_nifti(
    path: str | os.PathLike[str],
    volume_like: Volume,
    stack: np.ndarray,
    dtype: npt.DTypeLike = np.int16,
    provenance: Provenance | None = None,
) -> None:
    """Writes ``stack`` (H, W, D, display order) as NIfTI with ``volume_like``'s shape and affine, atomically.

    Integer types are rounded and clipped to the type's range.

    Args:
        provenance: of synthetic voxels, said in the header; None leaves what ``volume_like``'s header says.
    """
    array = volume_like.restore(stack)
    kind = np.dtype(dtype)
    if kind.kind in "iu" and array.dtype != kind:
        limits = np.iinfo(kind)
        array = np.clip(np.rint(array), limits.min, limits.max)
    image = nib.Nifti1Image(array.astype(kind, copy=False), volume_like.affine, volume_like.header)
    image.set_data_dtype(kind)
    image.header["cal_min"] = image.header["cal_max"] = 0  # the source's display range is not the result's
    if provenance is not None:
        provenance.mark(image.header)
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def single_slice(height: int, width: int, spacing_mm: float) -> Volume:
    """The place of one axial slice, 1 mm thick, for `write_nifti`; columns run to the left, rows to the back.

    Args:
        spacing_mm: side of a pixel.
    """
    side = float(spacing_mm)
    affine = np.diag([-side, -side, 1.0, 1.0])
    return Volume(np.empty((0, 0, 0)), affine, (side, side, 1.0), True, (0.0, 255.0), (width, height, 1))


def open_volume(path: str | os.PathLike[str]) -> Volume:
    """`Volume.from_file` with a small cache, so that the slices of one volume decompress it once."""
    source = Path(path)
    with read_errors(source):
        return _cached_volume(str(source), _fingerprint(source))


def volume_depth(path: Path) -> int:
    """Number of axial slices: from the header alone where it is NIfTI.

    Raises:
        UserError: unreadable.
    """
    if not has_suffix(path, NIFTI_SUFFIXES):
        return open_volume(path).depth  # a damaged one is refused here
    return volume_shape(path)[2]


def volume_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, D) in display order, from the headers alone.

    Raises:
        UserError: unreadable.
    """
    return volume_grid(path).shape


def volume_grid(path: Path) -> Grid:
    """Where the voxels of a volume lie, from the headers alone.

    Raises:
        UserError: unreadable.
    """
    with read_errors(path):
        shape, affine = volume_geometry(path)
        place = _to_display(affine)[:, 0]  # where each file axis goes
        height, width, depth = (int(shape[int(np.flatnonzero(place == axis)[0])]) for axis in range(3))
        return Grid(path, (height, width, depth), _display_affine(affine, shape), affine)


@lru_cache(maxsize=CACHED_VOLUMES)
def _cached_volume(path: str, fingerprint: tuple[tuple[int, int], ...]) -> Volume:
    return Volume.from_file(path)


def _fingerprint(path: Path) -> tuple[tuple[int, int], ...]:
    """Time and size of all files that make up the volume: another fingerprint is another volume."""
    stats = [part.stat() for part in source_parts(path)]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


def _to_display(affine: np.ndarray) -> np.ndarray:
    """The nibabel orientation transform from the file's axes to display order."""
    found = io_orientation(affine)
    if np.isnan(found).any():
        raise ValueError("its affine is singular")
    return ornt_transform(found, axcodes2ornt(DISPLAY_AXES))


def _display_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """4 x 4: (row, column, slice) in display order to world mm; ``shape`` is the file's (X, Y, Z)."""
    return affine @ inv_ornt_aff(_to_display(affine), shape)


def _spacing(content: VolumeFile) -> tuple[float, float, float]:
    """Voxel sizes in mm in display order."""
    sizes = np.linalg.norm(content.affine[:3, :3], axis=0)
    world = io_orientation(content.affine)[:, 0].astype(int)  # file axis -> world axis (0 x, 1 y, 2 z)
    by_world = {int(axis): float(size) for axis, size in zip(world, sizes, strict=True)}
    return by_world[1], by_world[0], by_world[2]


def _check_values(array: np.ndarray, path: Path) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{path}: holds NaN or infinite values; repair or remove the volume")

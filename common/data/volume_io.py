"""Volumes in display order, and where their voxels lie: NIfTI and Analyze by nibabel, other formats beside.

`Volume` and `open_volume` read any volume file, `Grid` says where its voxels lie, and `check_same_place`
refuses image and mask that lie in different places. MHD, MHA and NRRD are decoded in `common.data.itk_io`,
DICOM in `common.data.dicom_io`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
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

from common.data.dicom_io import dicom_files, find_single_series, read_series
from common.data.hu_calibration import Calibration, GrayValues, calibrate, nominal_range
from common.data.intensity import EIGHT_BIT_WHITE
from common.data.itk_io import data_files, itk_geometry, read_itk
from common.data.samples import META_SUFFIXES, NIFTI_SUFFIXES, NRRD_SUFFIXES, PAIR_SUFFIXES, has_suffix
from common.errors import UserError, read_errors
from common.files import atomic_write
from common.provenance import Provenance

NIBABEL_SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES)
ITK_SUFFIXES = (*META_SUFFIXES, *NRRD_SUFFIXES)
PAIRS = (nib.Nifti1Pair, nib.Nifti2Pair, nib.Spm2AnalyzeImage, nib.Spm99AnalyzeImage, nib.AnalyzeImage)
NIFTI2_BYTES = 540
MOST_VOXELS = 2**31
"""A chest CT has about 2e8 voxels; a broken header can ask for anything."""
GZIP_CHUNK, GZIP = 2**18, zlib.MAX_WBITS | 16
"""Compressed bytes at a time: deflate packs up to a thousand to one."""
SIDES = "Analyze 7.5 does not say which side is which; its first axis is taken to run to the patient's left"
DISPLAY_AXES = ("P", "L", "S")
"""Rows run to posterior, columns to the patient's left, slices to superior: radiological, feet first."""
CACHED_VOLUMES = 4
SAME_PLACE_VOXELS = 0.01
"""Voxels: what tools lose when they write affines in single precision or with few decimals."""
AXES = ("rows", "columns", "slices")
logger = logging.getLogger(__name__)
_warned: set[Path] = set()


class Grid(NamedTuple):
    """The voxel grid of a file in display order: rows to posterior, columns to the left, slices to superior.

    Attributes:
        file: the file, for messages.
        shape: number of rows, columns, slices.
        affine: 4 x 4, (row, column, slice) to world mm (RAS).
        file_affine: 4 x 4, the file's own voxel indices to world mm (RAS).
    """

    file: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    file_affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between rows, columns, slices in mm."""
        rows, columns, slices = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(rows), float(columns), float(slices)

    def __str__(self) -> str:
        size = " x ".join(str(extent) for extent in self.shape)
        steps = " x ".join(f"{step:.4g}" for step in self.spacing)
        corner = ", ".join(f"{value:.4g}" for value in self.affine[:3, 3])
        return f"{size} voxels of {steps} mm from ({corner})"


def greatest_offset(image: Grid, mask: Grid) -> float:
    """The largest distance between corresponding corner voxels of two grids, in voxels of the image.

    Example:
        >>> affine = np.diag([2.0, 2.0, 4.0, 1.0])
        >>> moved = affine.copy()
        >>> moved[2, 3] = 1.0
        >>> one, other = (Grid(Path("a"), (8, 8, 3), matrix, matrix) for matrix in (affine, moved))
        >>> greatest_offset(one, other)
        0.25
    """
    corners = np.array(
        [(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in mask.shape))]
    )
    offsets = corners @ (np.linalg.inv(image.affine) @ mask.affine).T - corners
    return float(np.abs(offsets[:, :3]).max())


def check_beside_picture(volume: Grid, picture: Path) -> None:
    """Refuses a pair of a volume and a picture, unless the volume is one slice stored like a picture.

    A picture has no geometry; it is upright as stored. A volume of one slice fits if its rows run to
    posterior and its columns to the left in the file too, as in what ITK writes from a picture.

    Raises:
        UserError: the volume may be mirrored or rotated against the picture.

    Example:
        >>> itk = np.diag([-0.5, -0.5, 1.0, 1.0])  # columns to the left, rows to posterior
        >>> display = itk[:, [1, 0, 2, 3]]  # the same, for (row, column, slice)
        >>> check_beside_picture(Grid(Path("mask.nii.gz"), (8, 8, 1), display, itk), Path("image.png"))
    """
    to_file = np.linalg.inv(volume.file_affine) @ volume.affine
    if volume.shape[2] == 1 and np.allclose(to_file[:2, :2], [[0, 1], [1, 0]]):
        return
    raise UserError(
        f"{volume.file}: is a volume ({volume}) beside the picture {picture}, which has no place, so one may "
        "be mirrored or turned; save image and mask in one format, with their geometry"
    )


def lies_in_same_place(image: Grid, mask: Grid) -> bool:
    """Whether two grids are equal to a hundredth of a voxel."""
    return image.shape == mask.shape and greatest_offset(image, mask) <= SAME_PLACE_VOXELS


def check_same_place(image: Grid, mask: Grid) -> None:
    """Refuses an image and a mask whose grids differ by more than a hundredth of a voxel.

    The order and direction of the axes in the files may differ.

    Raises:
        UserError: names both files and both geometries; says so where an affine is the identity.

    Example:
        >>> affine = np.diag([2.0, 2.0, 4.0, 1.0])
        >>> image, mask = (Grid(Path(name), (8, 8, 3), affine, affine) for name in ("ct", "mask"))
        >>> check_same_place(image, mask)
    """
    if image.shape != mask.shape:
        different = [
            f"{there} {name} instead of {here}"
            for name, here, there in zip(AXES, image.shape, mask.shape, strict=True)
            if here != there
        ]
        raise UserError(
            f"{mask.file}: does not fit {image.file}: {', '.join(different)} "
            f"(it has {mask}, the image {image}); resample one to the other"
        )
    offset = greatest_offset(image, mask)
    if offset <= SAME_PLACE_VOXELS:
        return
    for grid, other in ((mask, image), (image, mask)):
        if np.allclose(np.abs(grid.file_affine), np.eye(4)):
            raise UserError(
                f"{grid.file}: its affine is the identity, so its place was lost when it was saved "
                f"({other.file} has {other}); if its voxels are stored in the same order, copy that file's "
                "affine, else save it again with its geometry"
            )
    raise UserError(
        f"{mask.file}: lies elsewhere than {image.file}, by up to {offset:.3g} voxels: it has {mask}, "
        f"the image {image}; resample one to the other, or copy the header if only that is wrong"
    )


@dataclass(frozen=True)
class Volume:
    """A volume in display order: rows to posterior, columns to the patient's left, slices from the feet up.

    Attributes:
        array: (H, W, D), of the file's number type.
        affine: 4 x 4, the file's own voxel indices to world mm (RAS).
        spacing: voxel size along H, W, D in mm.
        is_hu: whether the values should be HU: False for values within 0..255, or real ones within 0..1.
        source_range: values of black and white where they are not HU.
        file_shape: shape of the array in the file.
        header: of a NIfTI file; None for other formats.
        has_spacing: False where the file gives no voxel size; ``spacing`` is then 1 mm.
        values: summary of all voxels; None for a volume that was not read from a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "ct.nii.gz"
        ...     voxels = np.arange(-6, 18, dtype=np.int16).reshape(4, 3, 2)  # x to the left, y to the back
        ...     nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, -0.75, 2.0, 1.0])), path)
        ...     volume = Volume.from_file(path)
        >>> volume.array.shape, volume.spacing, np.array_equal(volume.restore(volume.array), voxels)
        ((3, 4, 2), (0.75, 0.5, 2.0), True)
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
            UserError: unreadable, not 3-D, non-finite, or with an unusable affine.
        """
        source = Path(path)
        content = read_volume_file(source)
        spatial = content.array.reshape(_three(content.array.shape))  # (X, Y, Z)
        with read_errors(source):
            array = apply_orientation(spatial, to_display(content.affine))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{source}: holds NaN or infinite values; repair or remove the volume")
        nominal = nominal_range(array)
        sizes = np.linalg.norm(content.affine[:3, :3], axis=0)
        world = io_orientation(content.affine)[:, 0].astype(int)  # file axis -> world axis (0 x, 1 y, 2 z)
        by_world = {int(axis): float(size) for axis, size in zip(world, sizes, strict=True)}
        return cls(
            array=np.asarray(array),
            affine=content.affine,
            spacing=(by_world[1], by_world[0], by_world[2]),
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
        """What the values of an image mean, see `common.data.hu_calibration.calibrate`; not for labels."""
        values = self.values or GrayValues(self.array)
        own = None if self.is_hu else self.source_range
        return calibrate(values, own, hu_offset, source_range, source, hint)

    def grid(self, file: Path) -> Grid:
        """The voxel grid; ``file`` is where the volume was read from."""
        height, width, depth = self.array.shape
        return Grid(file, (height, width, depth), self.display_affine, self.affine)

    @property
    def depth(self) -> int:
        """Number of axial slices."""
        return int(self.array.shape[2])

    @property
    def display_affine(self) -> np.ndarray:
        """4 x 4: (row, column, slice) of ``array`` to world mm (RAS)."""
        return display_affine(self.affine, _three(self.file_shape))

    def restore(self, stack: np.ndarray) -> np.ndarray:
        """Converts a stack (H, W, D) in display order to the file's own axis order and shape."""
        back = ornt_transform(axcodes2ornt(DISPLAY_AXES), io_orientation(self.affine))
        return apply_orientation(np.asarray(stack), back).reshape(self.file_shape)


def write_nifti(
    path: str | os.PathLike[str],
    volume_like: Volume,
    stack: np.ndarray,
    dtype: npt.DTypeLike = np.int16,
    provenance: Provenance | None = None,
) -> None:
    """Writes a stack as NIfTI with the geometry of another volume; the file is whole or absent.

    Args:
        path: file to write.
        volume_like: gives affine, axis order and header.
        stack: (H, W, D) in display order.
        dtype: type in the file; for integers values are rounded and clipped to the type's range.
        provenance: written to the header of synthetic volumes; None keeps that of ``volume_like``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_nifti(Path(folder) / "a.nii.gz", single_slice(2, 3, 0.7), np.full((2, 3, 1), 40.4))
        ...     open_volume(Path(folder) / "a.nii.gz").array[:, :, 0].tolist()
        [[40, 40, 40], [40, 40, 40]]
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
    """The geometry of an axial slice, 1 mm thick, with pixels of ``spacing_mm``, for `write_nifti`."""
    side = float(spacing_mm)
    affine = np.diag([-side, -side, 1.0, 1.0])
    return Volume(np.empty((0, 0, 0)), affine, (side, side, 1.0), True, (0.0, 255.0), (width, height, 1))


def open_volume(path: str | os.PathLike[str]) -> Volume:
    """`Volume.from_file` with a cache of a few volumes, so that their slices decompress them once."""
    source = Path(path)
    with read_errors(source):
        return _cached_volume(str(source), _fingerprint(source))


def volume_depth(path: Path) -> int:
    """Number of axial slices; of NIfTI from the header alone, of other formats after reading all voxels.

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
    """The voxel grid of a volume, from the headers alone.

    Raises:
        UserError: unreadable.
    """
    with read_errors(path):
        shape, affine = volume_geometry(path)
        axes = to_display(affine)[:, 0]  # where each file axis goes
        height, width, depth = (int(shape[int(np.flatnonzero(axes == axis)[0])]) for axis in range(3))
        return Grid(path, (height, width, depth), display_affine(affine, shape), affine)


@lru_cache(maxsize=CACHED_VOLUMES)
def _cached_volume(path: str, fingerprint: tuple[tuple[int, int], ...]) -> Volume:
    return Volume.from_file(path)


def _fingerprint(path: Path) -> tuple[tuple[int, int], ...]:
    """Time and size of all files of a volume."""
    stats = [part.stat() for part in source_parts(path)]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


def to_display(affine: np.ndarray) -> np.ndarray:
    """The nibabel orientation transform from the file's axes to display order."""
    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise ValueError("its affine is singular")
    return ornt_transform(orientation, axcodes2ornt(DISPLAY_AXES))


def display_affine(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """4 x 4: (row, column, slice) in display order to world mm; ``shape`` is the file's (X, Y, Z)."""
    return affine @ inv_ornt_aff(to_display(affine), shape)


def source_parts(path: Path) -> list[Path]:
    """The files of a volume or picture: the slices of a series, or a header and the data files that exist.

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


class VolumeFile(NamedTuple):
    """A volume in its file's own axis order: array (X, Y, Z), affine to world mm (RAS).

    ``has_spacing`` is False where the header gives no voxel size; it is then taken to be 1 mm.
    """

    array: np.ndarray
    affine: np.ndarray
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None
    has_spacing: bool = True


def read_volume_file(path: Path) -> VolumeFile:
    """Reads a volume in the file's axis order.

    Raises:
        UserError: unreadable or not a 3-D volume.
    """
    with read_errors(path):
        if has_suffix(path, NIBABEL_SUFFIXES):
            return _read_nifti(path)
        array, affine, has_spacing = (read_itk if has_suffix(path, ITK_SUFFIXES) else read_series)(path)
        _check_shape(array.shape, path)
        _check_affine(affine)
        return VolumeFile(array, affine, array.shape, None, has_spacing)


def volume_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(X, Y, Z) extent and affine to world mm (RAS), from headers alone; raises what its reader raises."""
    if has_suffix(path, NIBABEL_SUFFIXES):
        image = _open_nifti(path)
        return _three(image.shape), np.asarray(image.affine, dtype=np.float64)
    if has_suffix(path, ITK_SUFFIXES):
        return itk_geometry(path)
    series = find_single_series(path)
    return series.shape, series.affine


def _voxel_file(path: Path) -> Path:
    """The file with the voxels of a NIfTI file or of the header of a pair."""
    if not has_suffix(path, PAIR_SUFFIXES):
        return path
    name = path.name[: path.name.lower().rindex(".hdr")]
    beside = [file for file in path.parent.iterdir() if file.name.startswith(name)]
    ends = (f"{name}.img".lower(), f"{name}.img.gz".lower())
    files = sorted(file for file in beside if file.name.lower() in ends)
    if not files:
        raise UserError(
            f"{path}: its voxels, {name}.img or {name}.img.gz, are missing; put them beside the header"
        )
    return files[0]


def _placement(path: Path) -> Path:
    """Where SPM writes the affine of an Analyze pair."""
    return path.with_name(f"{path.name[: path.name.lower().rindex('.hdr')]}.mat")


def _open_nifti(path: Path) -> nib.AnalyzeImage:
    """Opens NIfTI, or a NIfTI or Analyze pair; `nib.load` wants both files of a pair compressed or none."""
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
    """Warns once where qform and sform differ; nibabel takes the sform."""
    if path in _warned or not isinstance(image, nib.Nifti1Pair):
        return
    header = image.header
    if not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return
    other = np.asarray(image.get_qform(), dtype=np.float64)
    sform, qform = (Grid(path, _three(image.shape), matrix, matrix) for matrix in (affine, other))
    offset = greatest_offset(sform, qform)
    if offset > SAME_PLACE_VOXELS * 10:  # qforms are in single precision and have no shear
        _warned.add(path)
        logger.warning(
            f"{path}: its qform and sform differ by up to {offset:.3g} voxels; the sform is taken ({sform})"
        )


def _has_voxel_size(path: Path, image: nib.AnalyzeImage) -> bool:
    """Whether the header in the file gives one; nibabel turns missing ones into 1 mm."""
    with ImageOpener(str(path)) as file:
        header = cast(Any, type(image.header)).from_fileobj(file, check=False)
    placed = "sform_code" in header and header["sform_code"] > 0
    return bool(placed or (header["pixdim"][1 : min(image.ndim, 3) + 1] != 0).all())


def _decompressed(path: Path, stored: ArrayProxy) -> np.ndarray:
    """Decompresses and scales the voxels of a .nii.gz, and checks the checksum, which nibabel does not."""
    array = np.empty(stored.shape, stored.dtype, order="F")
    position, whole = -int(stored.offset), array.nbytes
    voxels = array.reshape(-1, order="F").view(np.uint8)  # shares the memory
    for chunk in gunzip(path):
        part = chunk[max(0, -position) : max(0, whole - position)]
        start = max(0, position)
        voxels[start : start + len(part)] = np.frombuffer(part, np.uint8)
        position += len(chunk)
    if position < whole:
        raise ValueError(f"its voxels take {whole} bytes but there are {max(0, position)}")
    return apply_read_scaling(array, np.float64(stored.slope), np.float64(stored.inter))


def gunzip(path: Path) -> Iterator[bytes]:
    """Yields the decompressed content in pieces, with checks; several gzip members are read as one.

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


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    """The first three extents; 1 where there are fewer."""
    x, y, z = (*shape, 1, 1)[:3]
    return int(x), int(y), int(z)

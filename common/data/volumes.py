"""Volumes in display order, and the way back to the file's own axes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from common.data.intensity import EIGHT_BIT_WHITE, offset_to_hu, value_range
from common.data.unreadable import explained
from common.data.volume_files import (
    NIFTI_SUFFIXES,
    VOLUME_SUFFIXES,
    VolumeFile,
    is_volume,
    itk_geometry,
    nifti_geometry,
    read_volume_file,
    source_parts,
)
from common.errors import UserError
from common.files import atomic_write
from common.provenance import Provenance

__all__ = [
    "VOLUME_SUFFIXES",
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
        value_range: lowest and highest value, see `common.data.intensity.value_range`.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    is_hu: bool
    source_range: tuple[float, float]
    file_shape: tuple[int, ...]
    header: nib.Nifti1Header | None = field(default=None, repr=False)
    has_spacing: bool = True
    value_range: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Volume:
        """Reads NIfTI, MHD/MHA or a DICOM series folder.

        Raises:
            UserError: unreadable, not a 3-D volume, non-finite, constant, or with an unusable affine.
        """
        source = Path(path)
        content = read_volume_file(source)
        spatial = content.array.reshape(
            (*content.array.shape[:3], *[1] * (3 - content.array.ndim))
        )  # (X, Y, Z)
        with explained(source):
            array = apply_orientation(spatial, _to_display(content.affine))
        _check_values(array, source)
        is_hu, source_range = _meaning(array)
        return cls(
            array=np.asarray(array),
            affine=content.affine,
            spacing=_spacing(content),
            is_hu=is_hu,
            source_range=source_range,
            file_shape=content.file_shape,
            header=content.header,
            has_spacing=content.has_spacing,
            value_range=value_range(array),
        )

    def offset(self, hu_offset: float | None, source: Path, hint: str = "") -> float:
        """What to add to ``array`` to get HU; 0 where values are not HU. Of images only: labels have no air.

        Args:
            hu_offset, source, hint: see `common.data.intensity.offset_to_hu`.
        Raises:
            UserError: it looks like a CT stored with an offset, and nothing is said of that.
        """
        return offset_to_hu(self.value_range, hu_offset, source, hint) if self.is_hu else 0.0

    @property
    def depth(self) -> int:
        """Number of axial slices."""
        return int(self.array.shape[2])

    @property
    def display_affine(self) -> np.ndarray:
        """4 x 4: (row, column, slice) of ``array`` to world mm (RAS)."""
        shape = (*self.file_shape[:3], *[1] * (3 - len(self.file_shape)))
        return self.affine @ inv_ornt_aff(_to_display(self.affine), shape)

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
    with explained(source):
        return _cached_volume(str(source), _fingerprint(source))


def volume_depth(path: Path) -> int:
    """Number of axial slices: from the header alone where it is NIfTI.

    Raises:
        UserError: unreadable.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return open_volume(path).depth  # a damaged one is refused here
    return volume_shape(path)[2]


def volume_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, D) in display order, from the headers alone.

    Raises:
        UserError: unreadable.
    """
    with explained(path):
        nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
        shape, affine = nifti_geometry(path) if nifti else itk_geometry(path)
        place = _to_display(affine)[:, 0]  # where each file axis goes
        height, width, depth = (int(shape[int(np.flatnonzero(place == axis)[0])]) for axis in range(3))
        return height, width, depth


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


def _spacing(content: VolumeFile) -> tuple[float, float, float]:
    """Voxel sizes in mm in display order."""
    sizes = np.linalg.norm(content.affine[:3, :3], axis=0)
    world = io_orientation(content.affine)[:, 0].astype(int)  # file axis -> world axis (0 x, 1 y, 2 z)
    by_world = {int(axis): float(size) for axis, size in zip(world, sizes, strict=True)}
    return by_world[1], by_world[0], by_world[2]


def _check_values(array: np.ndarray, path: Path) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{path}: holds NaN or infinite values; repair or remove the volume")


def _meaning(array: np.ndarray) -> tuple[bool, tuple[float, float]]:
    """Whether values are HU, and the full range where they are not. A CT has air, which is below 0 HU."""
    lowest, highest = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and lowest >= 0.0 and highest <= 1.0:
        return False, (0.0, 1.0)
    return not (lowest >= 0.0 and highest <= EIGHT_BIT_WHITE), (0.0, EIGHT_BIT_WHITE)

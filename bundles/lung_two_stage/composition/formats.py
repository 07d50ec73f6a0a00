"""How a composite's image and mask become the bytes of a file, and back."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common.data.intensity import Window, window_by_name
from common.errors import UserError
from common.provenance import Provenance, png_text

FORMATS = {"npy": "npy", "png": "png", "png16": "png", "nifti": "nii.gz"}
"""By name, the file suffix."""
WINDOWS = {"png": "lung", "png16": "wide"}
"""What black and white stand for where no window was given; ``wide`` in 16 bits loses nothing."""
GREYS = {"png": 255, "png16": 65535}
FASTEST = 1
"""Compression level: higher ones take three times as long and save a twentieth."""


@dataclass(frozen=True)
class Format:
    """A file format for images and masks.

    Args:
        name: a key of `FORMATS`: ``npy`` int16 HU; ``png`` 8 bits and ``png16`` 16 bits of a HU window, grey
            values 0 at its lower and 255 or 65535 at its upper end; ``nifti`` int16 HU with the spacing.
            Masks are uint8 in all of them.
        window: of the PNGs: a preset's name or [lower, upper] in HU; None for `WINDOWS`.
    Raises:
        UserError: an unknown name, or a window for a format that has none.
    """

    name: str = "npy"
    window: str | Window | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise UserError(f"format {self.name!r} is unknown; choose {', '.join(FORMATS)}")
        if self.window is not None and self.name not in WINDOWS:
            raise UserError(f"format {self.name} keeps HU as they are; leave the window out")

    @property
    def suffix(self) -> str:
        """Of the files, without its first dot."""
        return FORMATS[self.name]

    @property
    def greys(self) -> Window | None:
        """The HU window of a PNG; None where HU are kept."""
        if self.name not in WINDOWS:
            return None
        return window_by_name(WINDOWS[self.name] if self.window is None else self.window)

    def image(self, hu: NDArray[np.int16], spacing_mm: float) -> bytes:
        """The image (H, W) in HU as a file's bytes, always the same; PNG and NIfTI say it is synthetic."""
        window = self.greys
        if window is None:
            return self._plain(hu, spacing_mm)
        unit = np.clip((hu - np.float32(window.lower)) / np.float32(window.width), 0, 1)
        kind = np.uint8 if self.name == "png" else np.uint16
        return _png(np.rint(unit * np.float32(GREYS[self.name])).astype(kind))

    def mask(self, labels: NDArray[np.uint8], spacing_mm: float) -> bytes:
        """The mask (H, W) as a file's bytes."""
        return self._plain(labels, spacing_mm) if self.greys is None else _png(labels)

    def read_image(self, content: bytes) -> NDArray[np.int16]:
        """HU (H, W) of what `image` gave; of a PNG to the nearest, within its window."""
        array, window = self._read(content), self.greys
        if window is None:
            return array
        unit = array.astype(np.float64) / GREYS[self.name]
        return np.rint(unit * window.width + window.lower).astype(np.int16)

    def read_mask(self, content: bytes) -> NDArray[np.uint8]:
        """The mask (H, W) of what `mask` gave."""
        return self._read(content)

    def _plain(self, array: np.ndarray, spacing_mm: float) -> bytes:
        return _npy(array) if self.name == "npy" else _nifti(array, spacing_mm)

    def _read(self, content: bytes) -> np.ndarray:
        if self.name == "npy":
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        if self.name == "nifti":
            image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
            return np.ascontiguousarray(np.asarray(image.dataobj)[..., 0].T)
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture)


@lru_cache(maxsize=1)
def made_by() -> Provenance:
    """What composites are made by: this bundle in its version; of no single model."""
    return Provenance.of("lung_two_stage")


@lru_cache(maxsize=1)
def _png_text() -> PngInfo:
    return png_text(made_by().text, made_by().maker)


def _npy(array: np.ndarray) -> bytes:
    return _npy_header(array.shape, array.dtype.str) + array.tobytes()


@lru_cache
def _npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    file = io.BytesIO()
    description = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png", compress_level=FASTEST, pnginfo=_png_text())
    return file.getvalue()


def _nifti(array: np.ndarray, spacing_mm: float) -> bytes:
    """One axial slice: columns run to the patient's left, rows to the back."""
    affine = np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0])
    image = nib.Nifti1Image(array.T[..., None], affine, dtype=array.dtype)
    made_by().mark(image.header)
    return gzip.compress(image.to_bytes(), compresslevel=FASTEST, mtime=0)

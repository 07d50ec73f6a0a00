"""Settings of a set of composites, and the file formats that it can be written in."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.plan import PlanSettings
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.data.intensity import Window, window_by_name
from common.errors import UserError, check_int
from common.files import read_json
from common.provenance import Provenance, png_text

FORMATS = {"npy": "npy", "png": "png", "png16": "png", "nifti": "nii.gz"}
"""File suffix of each format."""
WINDOWS = {"png": "lung", "png16": "wide"}
"""HU window of the PNGs by default; ``wide`` in 16 bits loses nothing."""
WHITE = {"png": 255, "png16": 65535}
COMPRESSION = 1
"""Of PNG and gzip; higher levels take three times as long and save 5 %."""


@dataclass(frozen=True)
class FileFormat:
    """Encodes images and masks as files, and decodes them. The same array gives the same bytes.

    Example:
        >>> png = FileFormat("png", window=(-1000, 400))
        >>> content = png.encode_image(np.array([[-1000, -300], [400, 400]], np.int16), spacing_mm=0.7)
        >>> png.decode_image(content).tolist()  # to the nearest of 256 gray values
        [[-1000, -297], [400, 400]]

    Args:
        name: a key of `FORMATS`. ``npy``: int16 HU. ``png``, ``png16``: 8 or 16 bits, 0 at the lower and the
            largest value at the upper end of a HU window. ``nifti``: int16 HU with the pixel spacing.
            Masks are uint8 in all of them.
        window: of the PNGs, a preset's name or (lower, upper) in HU; None for `WINDOWS`.
    Raises:
        UserError: an unknown name, or a window for a format that keeps HU.
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
        """File suffix, without its first dot."""
        return FORMATS[self.name]

    @property
    def hu_window(self) -> Window | None:
        """HU window of a PNG; None where HU are kept."""
        if self.name not in WINDOWS:
            return None
        return window_by_name(WINDOWS[self.name] if self.window is None else self.window)

    def encode_image(self, hu: NDArray[np.int16], spacing_mm: float) -> bytes:
        """A file's content for an image (H, W) in HU. PNG and NIfTI are marked as synthetic."""
        window = self.hu_window
        if window is None:
            return self._encode_array(hu, spacing_mm)
        unit = np.clip((hu - np.float32(window.lower)) / np.float32(window.width), 0, 1)
        dtype = np.uint8 if self.name == "png" else np.uint16
        return _png(np.rint(unit * np.float32(WHITE[self.name])).astype(dtype))

    def encode_mask(self, labels: NDArray[np.uint8], spacing_mm: float) -> bytes:
        """A file's content for a mask (H, W)."""
        return self._encode_array(labels, spacing_mm) if self.hu_window is None else _png(labels)

    def decode_image(self, content: bytes) -> NDArray[np.int16]:
        """HU (H, W) of what `encode_image` gave; of a PNG rounded, and clipped to its window."""
        array, window = self._decode(content), self.hu_window
        if window is None:
            return array
        unit = array.astype(np.float64) / WHITE[self.name]
        return np.rint(unit * window.width + window.lower).astype(np.int16)

    def decode_mask(self, content: bytes) -> NDArray[np.uint8]:
        """The mask (H, W) of what `encode_mask` gave."""
        return self._decode(content)

    def _encode_array(self, array: np.ndarray, spacing_mm: float) -> bytes:
        if self.name == "nifti":
            return _nifti(array, spacing_mm)
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    def _decode(self, content: bytes) -> np.ndarray:
        if self.name == "npy":
            return np.load(io.BytesIO(content), allow_pickle=False)
        if self.name == "nifti":
            image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
            return np.ascontiguousarray(np.asarray(image.dataobj)[..., 0].T)
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture)


@lru_cache(maxsize=1)
def made_by() -> Provenance:
    """The provenance of composites: this bundle and its version, no single model."""
    return Provenance.of("lung_two_stage")


def _png(array: np.ndarray) -> bytes:
    file, text = io.BytesIO(), png_text(made_by().text, made_by().maker)
    Image.fromarray(array).save(file, "png", compress_level=COMPRESSION, pnginfo=text)
    return file.getvalue()


def _nifti(array: np.ndarray, spacing_mm: float) -> bytes:
    """One axial slice: columns run to the patient's left, rows to the back."""
    affine = np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0])
    image = nib.Nifti1Image(array.T[..., None], affine, dtype=array.dtype)
    made_by().mark(image.header)
    return gzip.compress(image.to_bytes(), compresslevel=COMPRESSION, mtime=0)


GENERATION_REPORT = "generation.json"
"""Lies in the folder of generated banks and names the models."""
EVEN = "even"
MOST_NODULES = 16
BLENDING = "opaque rims"
"""How nodules are blended; sets that were begun with another blending are not continued."""
_LEAST = {"groups": 1, "nodules_per_group": 1, "attempts": 1, "per_shard": 1, "seed": 0, "num_workers": 0}


@dataclass(frozen=True)
class ComposeSettings:
    """Sources, plan and file format of a set of composites.

    Args:
        nodules_dir: a `NoduleBank`.
        healthy_slices_dir: a `SliceBank` without nodules.
        output_dir: gets the shards; the same settings continue an unfinished set.
        presence_file: a `PresenceMap`; None for a uniform one.
        categories_file: JSON that lists under ``categories`` what mask values 1, 2, ... stand for, as the
            extraction writes it; None for the nodules' own categories in alphabetical order.
        count: composites kept of all combinations, those farthest from the lung's edge; None for 40 %.
        groups: nodule groups; each is combined with each healthy slice.
        nodules_per_group: at most.
        attempts: draws of a nodule's position before the combination is given up.
        per_shard: composites in a tar file.
        file_format, window: see `FileFormat`.
        seed: of all random draws.
        num_workers: processes that render; 0 for this one alone.
    Raises:
        UserError: a number or the format is not valid.

    Example:
        >>> settings = ComposeSettings("nodules", "healthy_slices", "out", groups=100, file_format="png")
        >>> settings.plan.groups, settings.format.hu_window
        (100, Window(lower=-1000, upper=400))
    """

    nodules_dir: str
    healthy_slices_dir: str
    output_dir: str
    presence_file: str | None = None
    categories_file: str | None = None
    count: int | None = None
    groups: int = 5000
    nodules_per_group: int = 3
    attempts: int = 50
    per_shard: int = 1000
    file_format: str = "npy"
    window: str | tuple[float, float] | None = None
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            object.__setattr__(self, name, check_int(name, getattr(self, name), least))
        if self.count is not None:
            object.__setattr__(self, "count", check_int("count", self.count, least=1))
        if self.nodules_per_group > MOST_NODULES:
            raise UserError(f"nodules_per_group {self.nodules_per_group}: give at most {MOST_NODULES}")
        if isinstance(self.window, Sequence) and not isinstance(self.window, str):
            object.__setattr__(self, "window", tuple(self.window))  # hashable
        _ = self.format.hu_window  # refuses an unknown format or window now

    @property
    def folder(self) -> Path:
        """Where the shards go."""
        return Path(self.output_dir)

    @property
    def format(self) -> FileFormat:
        """Format of the files in the shards."""
        return FileFormat(self.file_format, self.window)

    @property
    def plan(self) -> PlanSettings:
        """The settings that the plan depends on."""
        return PlanSettings(self.count, self.groups, self.nodules_per_group, self.attempts, self.seed)

    def banks(self) -> tuple[NoduleBank, SliceBank]:
        """Nodules and healthy slices, memory-mapped.

        Raises:
            UserError: one is missing or damaged.
        """
        return NoduleBank.load(self.nodules_dir, mapped=True), SliceBank.load(
            self.healthy_slices_dir, mapped=True
        )

    def models(self) -> dict[str, str | None]:
        """SHA-256 of the models that drew nodules and healthy slices; None for banks of real images."""
        reports = {
            name: Path(folder, GENERATION_REPORT)
            for name, folder in (("nodules", self.nodules_dir), ("healthy_slices", self.healthy_slices_dir))
        }
        return {
            name: read_json(path).get("model_sha256") if path.is_file() else None
            for name, path in reports.items()
        }

    def presence(self) -> PresenceMap:
        """The probability of a nodule at each position in a lung.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self.presence_file is None:
            return PresenceMap.from_points(())
        return PresenceMap.load(self.presence_file)

    def categories(self) -> list[str]:
        """Names of the mask values in their order; empty where ``categories_file`` is None.

        Raises:
            UserError: the file is missing, or lists no names.
        """
        content = {"categories": []} if self.categories_file is None else read_json(self.categories_file)
        names = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.categories_file}: lists no names under categories; give extraction.json")
        return names

    def identity(self) -> dict[str, Any]:
        """Everything that the bytes of the result depend on, as plain JSON; sources by their SHA-256."""
        window = self.format.hu_window
        return {
            **asdict(self.plan),
            "blending": BLENDING,
            "per_shard": self.per_shard,
            "format": self.file_format,
            "window_hu": None if window is None else [window.lower, window.upper],
            "nodules": _sha256(self.nodules_dir, ("hu.npy", "alpha.npy", "records.json")),
            "healthy_slices": _sha256(self.healthy_slices_dir, ("hu.npy", "lung.npy", "records.json")),
            "categories": self.categories(),
            "presence": EVEN if self.presence_file is None else _sha256(self.presence_file),
        }


def _sha256(path: str | os.PathLike[str], names: Sequence[str] = ("",)) -> str:
    """SHA-256 of the SHA-256s of a file, or of files in a folder."""
    whole = hashlib.sha256()
    for name in names:
        with Path(path, name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()

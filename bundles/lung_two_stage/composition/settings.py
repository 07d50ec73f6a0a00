"""What a set of composites is asked to be."""

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
from PIL.PngImagePlugin import PngInfo

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.plan import Rules
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.data.intensity import Window, window_by_name
from common.errors import UserError, check_int
from common.files import read_json
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


REPORT = "generation.json"
"""Beside a bank that a model drew from."""
EVEN = "even"
"""Stands for the presence map that knows no place better than another."""
MOST_NODULES = 16
BLENDING = "opaque rims"
"""How nodules are laid on slices: a set that was begun another way is not gone on with."""
_LEAST = {"groups": 1, "nodules_per_group": 1, "attempts": 1, "per_shard": 1, "seed": 0, "num_workers": 0}


@dataclass(frozen=True)
class Settings:
    """Sources, rules and form of a set of composites.

    Args:
        nodules_dir: a `NoduleBank`.
        healthy_slices_dir: a `SliceBank` without nodules.
        output_dir: gets the shards; the same settings go on with what is there.
        presence_file: a `PresenceMap`; None for places that are all alike.
        categories_file: JSON that lists under ``categories`` what mask values 1, 2, ... stand for, as the
            extraction leaves it; None for the nodules' own categories in alphabetical order.
        count: composites kept of all combinations, those farthest from the parenchyma's edge; None for 40 %.
        groups: nodule groups; each meets each normal.
        nodules_per_group: at most.
        attempts: draws for a nodule's place before the combination is given up.
        per_shard: composites in a tar file.
        file_format, window: see `bundles.lung_two_stage.composition.settings.Format`.
        seed: of all draws.
        num_workers: processes that render; 0 for this one.
    Raises:
        UserError: a number is none.
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
        _ = self.form

    @property
    def folder(self) -> Path:
        """Where the shards go."""
        return Path(self.output_dir)

    @property
    def form(self) -> Format:
        """Of the files in the shards."""
        form = Format(self.file_format, self.window)
        _ = form.greys  # a bad window is refused here
        return form

    @property
    def rules(self) -> Rules:
        """How composites are drawn and chosen."""
        return Rules(self.count, self.groups, self.nodules_per_group, self.attempts, self.seed)

    def banks(self) -> tuple[NoduleBank, SliceBank]:
        """Nodules and healthy slices, on disk.

        Raises:
            UserError: one is missing or damaged.
        """
        return NoduleBank.load(self.nodules_dir, mapped=True), SliceBank.load(
            self.healthy_slices_dir, mapped=True
        )

    def models(self) -> dict[str, str | None]:
        """SHA-256 of the models that drew nodules and healthy slices, by their banks; None where none did."""
        reports = {
            "nodules": Path(self.nodules_dir, REPORT),
            "healthy_slices": Path(self.healthy_slices_dir, REPORT),
        }
        return {
            layer: read_json(path).get("model_sha256") if path.is_file() else None
            for layer, path in reports.items()
        }

    def presence(self) -> PresenceMap:
        """The probability of a nodule at each place of a lung.

        Raises:
            UserError: the file is missing or damaged.
        """
        return (
            PresenceMap.from_points(())
            if self.presence_file is None
            else PresenceMap.load(self.presence_file)
        )

    def categories(self) -> list[str]:
        """Names of the mask values in their order, where they are given.

        Raises:
            UserError: the file is missing, or lists no names.
        """
        content = {"categories": []} if self.categories_file is None else read_json(self.categories_file)
        names = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.categories_file}: lists no names under categories; give extraction.json")
        return names

    def asked(self) -> dict[str, Any]:
        """All that the bytes of the result depend on, as plain JSON; the sources by their content."""
        greys = self.form.greys
        return {
            **asdict(self.rules),
            "blending": BLENDING,
            "per_shard": self.per_shard,
            "format": self.file_format,
            "window_hu": None if greys is None else [greys.lower, greys.upper],
            "nodules": _content(self.nodules_dir, ("hu.npy", "alpha.npy", "records.json")),
            "healthy_slices": _content(self.healthy_slices_dir, ("hu.npy", "lung.npy", "records.json")),
            "categories": self.categories(),
            "presence": EVEN if self.presence_file is None else _content(self.presence_file),
        }


def _content(place: str | os.PathLike[str], names: Sequence[str] = ("",)) -> str:
    """SHA-256 of the files' own ones."""
    whole = hashlib.sha256()
    for name in names:
        with Path(place, name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()

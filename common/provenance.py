"""Marks of synthetic images: every written image says that it is synthetic, and what made it.

A NIfTI header says it in ``descrip`` and ``aux_file``, a PNG in text chunks, a GIF or JPEG in its comment.
Inference also writes a JSON file for each image. Nothing here depends on date or place: the same model,
seed and condition give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
from PIL.PngImagePlugin import PngInfo

from common.data.samples import stem
from common.files import read_json, write_json
from common.paths import METADATA, bundle_root

SYNTHETIC = "synthetic"
SHEET = "synthetic: a sheet with generated images, which may show real ones beside them"
"""For pictures of several images, drawn while a model is trained or evaluated."""
DESCRIP_BYTES, AUX_FILE_BYTES = 79, 23  # of NIfTI's 80 and 24, the last is a zero
HASH_SHOWN = 16


@dataclass(frozen=True)
class Provenance:
    """Bundle, version, model and seed that made the images of a run.

    Args:
        bundle: its name, e.g. ``pix2pix_covid``; empty if unknown.
        bundle_root: its folder, whose metadata give the version; None for no version.
        model: the weights file; hashed when the first image is written. None where no single model drew.
        seed: of what was drawn; None where nothing was.
    """

    bundle: str = ""
    bundle_root: str | os.PathLike[str] | None = None
    model: str | os.PathLike[str] | None = None
    seed: int | None = None

    @classmethod
    def of(
        cls, bundle: str, model: str | os.PathLike[str] | None = None, seed: int | None = None
    ) -> Provenance:
        """Makes that of a bundle whose folder is found by its name."""
        return cls(bundle, bundle_root(bundle), model, seed)

    @cached_property
    def version(self) -> str:
        """The bundle's version; empty if unknown."""
        path = None if self.bundle_root is None else Path(self.bundle_root) / METADATA
        return str(read_json(path).get("version", "")) if path is not None and path.is_file() else ""

    @cached_property
    def model_sha256(self) -> str | None:
        """SHA-256 of the weights file; None if there is none."""
        model = None if self.model is None else Path(self.model)
        return sha256_of(model) if model is not None and model.is_file() else None

    @property
    def maker(self) -> str:
        """Bundle and version."""
        return " ".join(part for part in (self.bundle, self.version) if part)

    @property
    def text(self) -> str:
        """``synthetic, BUNDLE VERSION``."""
        return ", ".join(part for part in (SYNTHETIC, self.maker) if part)

    @property
    def marks(self) -> dict[str, Any]:
        """The part of the `record` that does not depend on model, seed and condition."""
        return {SYNTHETIC: True, "bundle": self.bundle, "version": self.version}

    def record(self, condition: str | os.PathLike[str] | None = None, **facts: Any) -> dict[str, Any]:
        """Returns all facts as plain JSON.

        Args:
            condition: the file that the image was made from; only its name is kept.
            facts: further ones, such as the number of the sample.
        """
        return {
            **self.marks,
            "model_sha256": self.model_sha256,
            "seed": self.seed,
            **({} if condition is None else {"condition": Path(condition).name}),
            **facts,
        }

    def png(self, condition: str | os.PathLike[str] | None = None, **facts: Any) -> PngInfo:
        """Returns text chunks for PIL's ``pnginfo``: Description, Software, and the `record` as Comment."""
        chunks = png_text(self.text, self.maker)
        chunks.add_text("Comment", json.dumps(self.record(condition, **facts), sort_keys=True))
        return chunks

    def mark(self, header: nib.Nifti1Header) -> None:
        """Marks a NIfTI header: ``descrip`` gets the `text`, ``aux_file`` the model's hash."""
        digest = self.model_sha256
        mark_header(header, self.text, SYNTHETIC if digest is None else f"sha256:{digest[:HASH_SHOWN]}")

    def write_beside(
        self, image: Path, condition: str | os.PathLike[str] | None = None, **facts: Any
    ) -> Path:
        """Writes the `record` as ``NAME.json`` next to the image ``NAME.png`` or ``NAME.nii.gz``."""
        path = image.with_name(f"{stem(image)}.json")
        write_json(path, self.record(condition, **facts))
        return path


UNKNOWN = Provenance()
"""Marks an image as synthetic, without more."""


def png_text(description: str, software: str = "") -> PngInfo:
    """Returns text chunks for PIL's ``pnginfo``."""
    chunks = PngInfo()
    chunks.add_text("Description", description)
    if software:
        chunks.add_text("Software", software)
    return chunks


def mark_header(header: nib.Nifti1Header, descrip: str, aux_file: str = SYNTHETIC) -> None:
    """Writes both texts into a NIfTI header, cut to their fields; a source's own texts there are replaced."""
    header["descrip"] = descrip.encode("ascii", "replace")[:DESCRIP_BYTES]
    header["aux_file"] = aux_file.encode("ascii", "replace")[:AUX_FILE_BYTES]


def sha256_of(file: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


UNKNOWN_COMMIT = "unknown: not in a git checkout"


def commit(root: Path) -> str:
    """Returns the checkout's commit, marked if tracked files have changed since."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return UNKNOWN_COMMIT
    return f"{head}, with changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else head


def fingerprint(file: Path) -> str:
    """Returns the first 12 digits of a file's SHA-256."""
    return sha256_of(file)[:12]


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

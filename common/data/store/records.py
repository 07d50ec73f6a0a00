"""The record beside each array: what it was made from, and whether that is still so."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from common.data.samples import stem
from common.data.store.conversion import Slices, Source
from common.data.store.planes import planes_shape
from common.data.store.reading import HEADER_BYTES
from common.data.store.request import Geometry, Request
from common.data.store.volume import StoredVolume
from common.data.unreadable import explained
from common.data.volume_files import source_parts

FORMAT = 2
"""Goes up whenever the same source and settings give other arrays, or are refused (2: a CT without air)."""
CHUNK = 2**20
Stamps = list[list[Any]]


@dataclass(frozen=True)
class Job:
    """One request under one geometry; equal jobs have equal names."""

    request: Request
    geometry: Geometry

    @property
    def source(self) -> Path:
        """The absolute path of the file."""
        return Path(os.path.abspath(self.request.path))

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the array beside the file's content; what labels do not depend on is left out."""
        geometry, intensity = asdict(self.geometry), self.request.intensity
        if self.geometry.spacing is not None or self.geometry.fit == "stretch":
            del geometry["fit"]  # as records had it before there was a choice
        if self.request.kind == "label":
            geometry, intensity = {**geometry, "interpolation": "nearest"}, None
        return {
            "format": FORMAT,
            "source": str(self.source),
            "kind": self.request.kind,
            "geometry": geometry,
            "intensity": None if intensity is None else asdict(intensity),
            "orientation": self.request.orientation,
            **({"hu_offset": self.request.hu_offset} if self.request.in_hu else {}),
        }

    @property
    def name(self) -> str:
        """The record's name without suffix: readable, and unique by a hash of the settings."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{quote(stem(self.source), safe='')[:60]}-{self.request.kind}-{digest[:12]}"


def stamps(source: Path) -> Stamps:
    """[name, bytes, time of change in ns] of every file that the volume consists of.

    Empty where it cannot be read, which converting it will say.
    """
    try:
        stats = [(part.name, part.stat()) for part in source_parts(source)]
    except OSError:
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def content_hash(source: Path) -> str:
    """SHA-256 over all files that the volume consists of.

    Raises:
        UserError: unreadable.
    """
    digest = hashlib.sha256()
    with explained(source):
        for part in source_parts(source):
            digest.update(f"{part.name} {part.stat().st_size}\n".encode())
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def make_record(
    job: Job, array: str, parts: Stamps, content: str, source: Source, slices: Slices
) -> dict[str, Any]:
    """The record, plain JSON, of a converted file; ``array`` is the name of its ``.npy``."""
    return {
        "settings": job.settings,
        "array": array,
        "parts": parts,
        "sha256": content,
        "shape": list(source.shape),
        "affine": source.affine.tolist(),
        "spacing": list(source.spacing),
        "lower": slices.lower,
        "upper": slices.upper,
        "is_hu": slices.is_hu,
        "values": list(slices.values),
        "counts": slices.counts.tolist(),
    }


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at ``path``; None where there is none that can be used."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # converted anew
    return record if isinstance(record, dict) else None


def stored_volume(record: dict[str, Any], job: Job, folder: Path) -> StoredVolume | None:
    """What the record says of ``job``; None where the array is not whole, or the record is not the job's."""
    if record.get("settings") != job.settings:
        return None
    height, width, depth = record["shape"]
    slices = planes_shape((height, width, depth), job.geometry.axis)[0]
    volume = StoredVolume(
        array=folder / record["array"],
        source=job.source,
        kind=job.request.kind,
        geometry=job.geometry,
        orientation=job.request.orientation,
        shape=(height, width, depth),
        affine=tuple(tuple(row) for row in record["affine"]),
        spacing=(record["spacing"][0], record["spacing"][1], record["spacing"][2]),
        lower=record["lower"],
        upper=record["upper"],
        is_hu=record["is_hu"],
        values=tuple(record["values"]),
        counts=np.array(record["counts"], np.int32).reshape(slices, len(record["values"])),
    )
    return volume if _is_whole(volume) else None


def _is_whole(volume: StoredVolume) -> bool:
    pixels = volume.depth * volume.geometry.size**2
    expected = HEADER_BYTES + pixels * (1 if volume.kind == "label" else 2)
    return volume.array.is_file() and volume.array.stat().st_size == expected

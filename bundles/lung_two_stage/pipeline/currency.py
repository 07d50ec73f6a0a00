"""Whether what a stage wrote still belongs to its inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import read_json, write_json


@dataclass(frozen=True)
class Record:
    """What is known of a stage's last run.

    Args:
        fingerprint: stands for command, configs and inputs.
        written: stamp of its folder at the end; empty while it runs.
        seconds: it took.
    """

    fingerprint: str
    written: str = ""
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Writes the record as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record at ``path``; None where there is none."""
        return cls(**read_json(path)) if path.is_file() else None


def fingerprint(settings: Mapping[str, Any], configs: Sequence[Path], inputs: Sequence[Path]) -> str:
    """Stands for what decides a stage's output: its settings, its configs' text, the files that it reads."""
    parts = {
        "settings": {name: str(value) for name, value in settings.items()},
        "configs": [hashlib.sha256(path.read_bytes()).hexdigest() for path in configs],
        "inputs": [stamp(folder) for folder in inputs],
    }
    return _hash(parts)


def stamp(folder: Path) -> str:
    """Stands for the files below a folder: names, sizes and times of change; their content is not read."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    facts = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return _hash([[name, found.st_size, found.st_mtime_ns] for name, found in facts])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

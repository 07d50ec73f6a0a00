"""Which of a bundle's trained models are shared, and which are too large for its zip."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from common.errors import UserError
from common.files import atomic_write, read_json, shown_files

LARGEST = 25_000_000
"""Bytes: MONAI's model zoo takes no larger files."""
KEPT_BACK = ("resume.pt", "resume_previous.pt", "split.json")
PATIENTS = "splits"
"""Of the facts beside a model: the names of its patients, which are not shared."""
LISTED = "large_files.yml"


def trained_models(folder: Path) -> dict[str, Path]:
    """What a download holds of a ``models`` folder: path in the bundle -> file; no state of trainings."""
    if not folder.is_dir():
        return {}
    files = (path for path in shown_files(folder) if path.name not in KEPT_BACK)
    return {f"models/{path.relative_to(folder).as_posix()}": path for path in files}


def shared_bytes(model: Path) -> bytes:
    """A model's file as it is shared: the facts beside it without its patients' names.

    Their number in each part and the rule that split them stay, by which the same data are split alike.
    """
    facts = read_json(model) if model.suffix == ".json" else None
    if not isinstance(facts, dict) or PATIENTS not in facts:
        return model.read_bytes()
    counts = {name: len(part) for name, part in facts.pop(PATIENTS).items()}
    return json.dumps({**facts, "patients": counts}, indent=2).encode() + b"\n"


def parted(models: Mapping[str, Path], largest: int = LARGEST) -> tuple[dict[str, Path], dict[str, Path]]:
    """The models that go into the zip, and those that are too large for it."""
    large = {name: path for name, path in models.items() if path.stat().st_size > largest}
    return {name: path for name, path in models.items() if name not in large}, large


def listed(large: Mapping[str, Path], url: str | None) -> bytes:
    """``large_files.yml`` as `monai.bundle.download_large_files` reads it.

    Args:
        large: path in the bundle -> file.
        url: of the folder that they will lie in.
    Raises:
        UserError: no address for them.
    """
    if not url:
        name, path = next(iter(large.items()))
        raise UserError(
            f"{path}: {path.stat().st_size / 1e6:.0f} MB are too many for the zip, it is listed instead; "
            f"say with --url where others will find the folder that {name} is copied to"
        )
    entries = [
        {"path": name, "url": f"{url}/{name}", "hash_val": sha256(path), "hash_type": "sha256"}
        for name, path in sorted(large.items())
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False).encode()


def copy_large(large: Mapping[str, Path], folder: Path) -> None:
    """Puts them where ``large_files.yml`` says that they are: ``FOLDER/models/...``."""
    for name, path in large.items():
        with atomic_write(folder / name) as temporary:
            shutil.copyfile(path, temporary)


def sha256(path: Path) -> str:
    """The hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Which public data sets there are: ``datasets.json``, read and checked against its schema."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from common.errors import UserError
from common.files import read_json
from common.paths import repository_root

REGISTRY_FILE = "datasets.json"
SCHEMA_FILE = Path(__file__).with_name("datasets.schema.json")


@dataclass(frozen=True)
class RemoteFile:
    """One file that may be fetched without an account.

    Attributes:
        url, name: where it is and what it is called on disk.
        sha256, md5: known digests, lower-case hex, or None.
        unpack_to: folder (relative) an archive is unpacked into; None for a plain file.
    """

    url: str
    name: str
    sha256: str | None = None
    md5: str | None = None
    unpack_to: str | None = None


@dataclass(frozen=True)
class PairRule:
    """Where images and masks lie below a set's folder, and what in a path pairs them and names the patient.

    ``key`` and ``patient`` are regular expressions searched in the path relative to the folder; their groups
    are joined with "_". Without ``patient`` the key names the patient.
    """

    images: str
    masks: str | None
    key: str
    patient: str | None = None
    slices_are_patients: bool = False
    orientation: str = "identity"


@dataclass(frozen=True)
class MaskConvention:
    """What mask values mean.

    Attributes:
        kind: "lesion", "labels" (anatomical structures) or "none" (no masks).
        values: every value above background and its meaning.
        foreground: values that become 1; None for any value above 0.
        threshold: soft masks: values from here on are 1.
        ignored: values that occur and stay background.
    """

    kind: str
    values: dict[int, str]
    foreground: tuple[int, ...] | None = None
    threshold: int | None = None
    ignored: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry; see ``datasets.schema.json`` for the meaning of each field."""

    name: str
    title: str
    what: str
    bundles: tuple[str, ...]
    landing_page: str
    licence: str | None
    sign_up: bool
    obtain: str
    files: tuple[RemoteFile, ...]
    adapter: str
    expect: str
    pairs: PairRule | None
    mask: MaskConvention
    modality: str = "CT"
    arrange: tuple[tuple[str, str], ...] = ()
    shared_patients: tuple[tuple[str, str], ...] = ()
    overlaps: tuple[str, ...] = ()
    notes: str = ""


def load_registry(path: str | Path | None = None) -> dict[str, Dataset]:
    """Reads and checks the registry.

    Args:
        path: a registry file; by default ``datasets.json`` beside ``common/``.
    Raises:
        UserError: the file is missing, is not JSON or does not fit the schema.
    """
    source = Path(path) if path else repository_root() / REGISTRY_FILE
    content = read_json(source)
    validate(content, source)
    return {name: _dataset(name, entry) for name, entry in sorted(content["datasets"].items())}


def validate(content: Any, source: str | Path) -> None:
    """Checks a registry's content against the schema and its cross-references.

    Raises:
        UserError: names the entry and the field that does not fit.
    """
    checker = jsonschema.Draft202012Validator(
        read_json(SCHEMA_FILE), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    error = jsonschema.exceptions.best_match(checker.iter_errors(content))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise UserError(f"{source}: {place}: {error.message}; correct the entry")
    for name, entry in content["datasets"].items():
        for other in entry.get("overlaps", []):
            if other not in content["datasets"]:
                raise UserError(f"{source}: datasets/{name}/overlaps: no entry {other!r}; correct the name")


def find_dataset(name: str, registry: dict[str, Dataset]) -> Dataset:
    """The entry called ``name``.

    Raises:
        UserError: no such entry; the message names the nearest one.
    """
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(name.lower(), registry, n=1, cutoff=0.0)
    raise UserError(f"{name}: no such data set; the nearest known name is {near[0]!r} (all of them: --list)")


def _dataset(name: str, entry: dict[str, Any]) -> Dataset:
    layout, pairs = entry["layout"], entry["layout"].get("pairs")
    return Dataset(
        name=name,
        title=entry["title"],
        what=entry["what"],
        bundles=tuple(entry["bundles"]),
        landing_page=entry["landing_page"],
        licence=entry["licence"],
        sign_up=entry["sign_up"],
        obtain=entry["obtain"],
        files=tuple(RemoteFile(**file) for file in entry["files"]),
        adapter=layout["adapter"],
        expect=layout["expect"],
        pairs=PairRule(**pairs) if pairs else None,
        mask=_mask(entry["mask"]),
        modality=entry.get("modality", "CT"),
        arrange=tuple((move["from"], move["to"]) for move in layout.get("arrange", [])),
        shared_patients=tuple((rule["pattern"], rule["id"]) for rule in entry.get("shared_patients", [])),
        overlaps=tuple(entry.get("overlaps", [])),
        notes=entry.get("notes", ""),
    )


def _mask(entry: dict[str, Any]) -> MaskConvention:
    return MaskConvention(
        kind=entry["kind"],
        values={int(value): meaning for value, meaning in entry["values"].items()},
        foreground=tuple(entry["foreground"]) if entry["foreground"] else None,
        threshold=entry.get("threshold"),
        ignored=tuple(entry.get("ignored", [])),
    )

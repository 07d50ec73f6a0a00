"""Public data sets: the registry ``datasets.json``, how to get a set, and its samples on disk."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema

from common.data.downloads import download, is_archive, unpack
from common.data.layouts import expand, find_samples, warn_of_left_out
from common.data.patients import patient_of
from common.data.samples import Sample
from common.errors import UserError
from common.files import is_hidden, read_json
from common.paths import repository_root

REGISTRY_FILE = "datasets.json"
SCHEMA_FILE = Path(__file__).with_name("datasets.schema.json")


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded without an account.

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
    """Globs of images and masks below the folder of a set, and patterns that pair them and name the patient.

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
    """The meaning of mask values.

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
    """Reads and validates the registry.

    Args:
        path: a registry file; None for ``datasets.json`` next to ``common/``.
    Raises:
        UserError: the file is missing, is not JSON or does not fit the schema.

    Example:
        >>> load_registry()["mosmed"].sign_up
        True
    """
    source = Path(path) if path else repository_root() / REGISTRY_FILE
    content = read_json(source)
    validate(content, source)
    return {name: _dataset(name, entry) for name, entry in sorted(content["datasets"].items())}


def validate(content: Any, source: str | Path) -> None:
    """Validates the content of a registry against the schema and its cross-references.

    Raises:
        UserError: names the entry and the field.
    """
    checker = jsonschema.Draft202012Validator(
        read_json(SCHEMA_FILE), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    error = jsonschema.exceptions.best_match(checker.iter_errors(content))
    if error is not None:
        position = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise UserError(f"{source}: {position}: {error.message}; correct the entry")
    for name, entry in content["datasets"].items():
        for other in entry.get("overlaps", []):
            if other not in content["datasets"]:
                raise UserError(f"{source}: datasets/{name}/overlaps: no entry {other!r}; correct the name")


def find_dataset(name: str, registry: dict[str, Dataset]) -> Dataset:
    """Returns the entry called ``name``.

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


@dataclass(frozen=True)
class LocalDataset:
    """A data set on disk.

    Args:
        dataset: its registry entry (layout, mask convention, patient rules).
        folder: where it was unpacked.
        foreground: mask values that become 1, instead of the entry's own.
        patient_pattern: identifies the patients instead of the rules of the entry, see
            `common.data.patients.patient_of`.
    """

    dataset: Dataset
    folder: Path
    foreground: tuple[int, ...] | None = None
    patient_pattern: str | None = None


def matches(dataset: Dataset, folder: Path) -> bool:
    """Returns whether ``folder`` looks like the set: at least one image where the layout expects it."""
    if not folder.is_dir():
        return False
    if dataset.pairs and next(_files(folder, dataset.pairs.images), None) is not None:
        return True
    folders = ("doctor", "pseudo") if dataset.adapter == "covid_lesions" else ("images",)
    return any((folder / name).is_dir() for name in folders)


def source_samples(source: LocalDataset) -> list[Sample]:
    """Returns the slices of a set, sorted, with its mask convention and patient ids that hold across sets.

    Raises:
        UserError: no images, an image without mask, or an ambiguous pair; names folder and file.
    """
    dataset, folder = source.dataset, source.folder
    if dataset.pairs and next(_files(folder, dataset.pairs.images), None) is not None:
        samples = list(_paired(source, dataset.pairs))
        warn_of_left_out(folder, [path for sample in samples for path in (sample.image, sample.mask)])
    elif matches(dataset, folder):
        layout = "auto" if dataset.pairs else dataset.adapter
        samples = find_samples(folder, layout, source.patient_pattern)
    else:
        raise UserError(f"{folder}: does not look like {dataset.name}; expected {dataset.expect}")
    samples = [_with_convention(sample, source) for sample in samples]
    if source.patient_pattern is not None:
        named = ((s, f"{dataset.name}-{patient_of(s.image, source.patient_pattern)}") for s in samples)
        return [replace(sample, patient=patient, person="") for sample, patient in named]
    return [replace(sample, patient=shared_patient(sample, dataset, folder), person="") for sample in samples]


def shared_patient(sample: Sample, dataset: Dataset, folder: Path) -> str:
    """Returns the id of the patient across sets: by the rules of the entry, else with the name of the set.

    The public COVID sets use each other's cases (the pseudo slices of COVID-SemiSeg are those of
    COVID-19-CT-Seg), so merging them by their own ids would put one patient into two splits.
    """
    path = _relative(sample.image, folder)
    for pattern, identity in dataset.shared_patients:
        if match := re.search(pattern, path):
            return identity.format(*match.groups())
    return f"{dataset.name}-{sample.unit}"


def _paired(source: LocalDataset, rule: PairRule) -> Iterator[Sample]:
    """Pairs images and masks by key and splits volumes into slices."""
    masks = _by_key(source, rule, rule.masks) if rule.masks else {}
    images = _by_key(source, rule, rule.images)
    # Only a part of the images of some sets is segmented: the rest is left out.
    keys = images.keys() & masks.keys() if rule.masks else images.keys()
    if not keys:
        raise UserError(f"{source.folder}: images without masks; expected {source.dataset.expect}")
    for key in sorted(keys):
        image = images[key]
        patient = _groups(rule.patient, _relative(image, source.folder)) if rule.patient else None
        sample = Sample(image, masks.get(key), patient or key, orientation=rule.orientation)
        for part in expand(sample):
            separate = rule.slices_are_patients and part.index is not None
            yield replace(part, patient=f"{part.patient}-z{part.index:03d}") if separate else part


def _with_convention(sample: Sample, source: LocalDataset) -> Sample:
    """Sets the mask values: the user's, else those of the layout (soft masks), else those of the entry."""
    mask = source.dataset.mask
    foreground = source.foreground or mask.foreground
    if sample.mask is None or (sample.mask_threshold is not None and source.foreground is None):
        return sample
    if mask.threshold is not None and source.foreground is None:
        return replace(sample, mask_threshold=mask.threshold)
    if foreground is None:
        return sample
    background = (0, *mask.values, *mask.ignored)
    return replace(sample, mask_values=foreground, mask_background=background, mask_threshold=None)


def _by_key(source: LocalDataset, rule: PairRule, pattern: str | None) -> dict[str, Path]:
    by_key: dict[str, Path] = {}
    for path in sorted(_files(source.folder, pattern or "")):
        key = _groups(rule.key, _relative(path, source.folder))
        if key is None:
            continue
        if key in by_key:
            raise UserError(f"{path}: is the same case as {by_key[key]}; keep one copy of the set")
        by_key[key] = path
    return by_key


def _groups(pattern: str, path: str) -> str | None:
    match = re.search(pattern, path)
    return "_".join(match.groups()) if match else None


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yields the matches of a glob without hidden files; links to folders are followed."""
    for name in glob.iglob(pattern, root_dir=folder, recursive=True):
        if (folder / name).is_file() and not any(map(is_hidden, Path(name).parts)):
            yield folder / name


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def obtain(dataset: Dataset, root: str | Path, *, root_is_set: bool = False, progress: bool = True) -> Path:
    """Returns the folder of a set; downloads and unpacks it if the registry lists its files.

    Args:
        dataset: the entry.
        root: folder of all sets; this one lies in ``root/NAME``.
        root_is_set: ``root`` itself may be the unpacked set.
        progress: show download bars.
    Raises:
        UserError: the set has to be downloaded by hand (instructions are printed), or a download failed.
    """
    root = Path(root)
    folder = root / dataset.name
    for candidate in (folder, root) if root_is_set else (folder,):
        if matches(dataset, candidate):
            print(f"{dataset.name}: found in {candidate}; licence: {licence(dataset)}")
            return candidate
    print(instructions(dataset, root))
    if not dataset.files:
        what = f"does not look like {dataset.name}" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; download the set by hand as described above and run again")
    for file in dataset.files:
        fetch(file, folder, progress=progress)
    arrange(dataset, folder)
    if not matches(dataset, folder):
        raise UserError(f"{folder}: the download does not hold what was expected ({dataset.expect})")
    return folder


def fetch(file: RemoteFile, folder: Path, *, progress: bool = True) -> None:
    """Downloads a file into ``folder``, prints its digest if none was known, and unpacks an archive."""
    target = folder / file.name
    unpacked = folder / file.unpack_to if file.unpack_to else None
    if unpacked is not None and unpacked.is_dir():
        return
    digests = download(file.url, target, file.sha256, file.md5, progress=progress)
    if file.sha256 is None:
        print(f"{target}: sha256 {digests.sha256}")
    if unpacked is not None and is_archive(target):
        unpack(target, unpacked)


def arrange(dataset: Dataset, folder: Path) -> None:
    """Moves unpacked folders to where the layout looks (``arrange`` in the registry).

    Raises:
        UserError: a folder to move is missing, or there are several.
    """
    for pattern, goal in dataset.arrange:
        target = folder / goal
        if target.exists():
            continue
        folders = [path for path in sorted(folder.glob(pattern)) if path.is_dir()]
        if len(folders) != 1:
            problem = f"{len(folders)} folders match {pattern} where one was expected"
            raise UserError(f"{folder}: {problem}; arrange it as {dataset.expect}")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folders[0], target)


def instructions(dataset: Dataset, root: str | Path) -> str:
    """Returns instructions for getting the set by hand."""
    lines = [
        f"{dataset.name}: {dataset.title}",
        f"  what     {dataset.what}",
        f"  licence  {licence(dataset)}",
        f"  page     {dataset.landing_page}",
        f"  get it   {dataset.obtain}{' (sign-up needed)' if dataset.sign_up else ''}",
        f"  unpack   into {Path(root) / dataset.name}",
        f"  expected {dataset.expect}",
    ]
    if dataset.notes:
        lines.append(f"  mind     {dataset.notes}")
    return "\n".join(lines)


def licence(dataset: Dataset) -> str:
    """Returns the licence as stated at the source, or where to look for it."""
    return dataset.licence or f"not confirmed, see {dataset.landing_page}"


def format_registry(registry: dict[str, Dataset]) -> str:
    """Formats all sets, one a line: name, how to get it, licence, content."""
    width = max(len(name) for name in registry)
    rows = [f"{'name':<{width}}  {'get':<8}  {'licence':<24.24}  what"]
    for name, dataset in registry.items():
        how = "download" if dataset.files else "sign-up" if dataset.sign_up else "by hand"
        rows.append(f"{name:<{width}}  {how:<8}  {dataset.licence or 'see page':<24.24}  {dataset.what}")
    return "\n".join(rows)

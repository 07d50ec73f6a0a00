"""Public data sets: the registry ``datasets.json``, download, unpacking, and the samples of a set on disk.

Downloads and archives are our own code: MONAI's `download_url` starts again after each interruption, puts
gigabytes into the system's temporary folder and passes over missing permissions in silence; its `extractall`
knows neither ``.tar.xz`` nor ``.tar.bz2`` and leaves half a folder behind.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import jsonschema
from tqdm import tqdm

from common.data.layouts import expand, find_samples
from common.data.patients import patient_of
from common.data.samples import Sample
from common.errors import UserError
from common.files import atomic_folder, read_json, sync
from common.paths import repository_root

REGISTRY_FILE = "datasets.json"
SCHEMA_FILE = Path(__file__).with_name("datasets.schema.json")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BY_HAND = (".7z", ".rar")
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile, tarfile and the decompressors raise for truncated, damaged or encrypted files."""
CHUNK_BYTES = 1 << 18
AGENT = "synthesis-data/1.0"
RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
"""Statuses worth another attempt: timeouts, too many requests, trouble of the server."""

logger = logging.getLogger(__name__)


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
        place = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise UserError(f"{source}: {place}: {error.message}; correct the entry")
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
    if left_out := len(images) - len(keys):
        logger.warning("%s: %d of %d images have no mask: left out", source.folder, left_out, len(images))
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
    found: dict[str, Path] = {}
    for path in sorted(_files(source.folder, pattern or "")):
        key = _groups(rule.key, _relative(path, source.folder))
        if key is None:
            continue
        if key in found:
            raise UserError(f"{path}: is the same case as {found[key]}; keep one copy of the set")
        found[key] = path
    return found


def _groups(pattern: str, path: str) -> str | None:
    match = re.search(pattern, path)
    return "_".join(match.groups()) if match else None


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yields the matches of a glob without hidden files (macOS writes ``._NAME`` next to each file)."""
    for path in folder.glob(pattern):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__MACOSX" for part in parts):
            yield path


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def is_archive(path: str | Path) -> bool:
    """Whether a name is that of an archive, also of one that has to be unpacked by hand (.7z, .rar)."""
    return str(path).lower().endswith((".zip", *TAR_SUFFIXES, *BY_HAND))


class Member(NamedTuple):
    """An entry of an archive: name, size in bytes, and whether it is a plain file or folder."""

    name: str
    size: int
    plain: bool


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpacks a zip or tar (.gz, .bz2, .xz) into ``folder``, which appears whole or not at all.

    Refused before anything is written: absolute names, names with "..", links, devices, and archives that
    unpack to more than the free space of the disk.

    Returns:
        ``folder``. A folder that exists counts as unpacked.
    Raises:
        UserError: names the archive and the member that is unsafe, damaged or too large.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.is_dir():
        return folder
    name = archive.name.lower()
    if not name.endswith((".zip", *TAR_SUFFIXES)):
        what = f"{archive.suffix} is not supported" if name.endswith(BY_HAND) else "not a zip or tar archive"
        raise UserError(f"{archive}: {what}; unpack it by hand and run again")
    read, extract = (_zip_members, _extract_zip) if name.endswith(".zip") else (_tar_members, _extract_tar)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_members(read(archive), archive, shutil.disk_usage(folder.parent).free)
        with atomic_folder(folder) as temporary:
            extract(archive, temporary)
    except DAMAGED as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); delete it and run again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder} ({error.strerror or error})") from error
    return folder


def check_members(members: list[Member], archive: Path, free: int) -> None:
    """Refuses unsafe names (in the notation of any system), links, devices, and more than ``free`` bytes.

    Raises:
        UserError: names the archive and the first member that is unsafe.
    """
    for member in members:
        paths = (PurePosixPath(member.name), PureWindowsPath(member.name))
        if any(path.anchor or ".." in path.parts for path in paths):
            raise UserError(f"{archive}: member {member.name!r} leads out of the folder; nothing unpacked")
        if not member.plain:
            raise UserError(f"{archive}: member {member.name!r} is a link or a device; nothing unpacked")
    total = sum(member.size for member in members)
    if total > free:
        sizes = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise UserError(f"{archive}: unpacks to {sizes}; nothing was unpacked, make room and run again")


def _zip_members(archive: Path) -> list[Member]:
    plain = (0, stat.S_IFREG, stat.S_IFDIR)  # 0 if the zip was not made on a Unix system
    with zipfile.ZipFile(archive) as opened:
        return [
            Member(info.filename, info.file_size, stat.S_IFMT(info.external_attr >> 16) in plain)
            for info in opened.infolist()
        ]


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def _tar_members(archive: Path) -> list[Member]:
    with tarfile.open(archive) as opened:
        return [Member(info.name, info.size, info.isreg() or info.isdir()) for info in opened]


def _extract_tar(archive: Path, folder: Path) -> None:
    """Writes the content of the checked members, without owners and modes.

    ``filter="data"`` of tarfile would do, but came with Python 3.11.4 (Debian 12 has 3.11.2).
    """
    with tarfile.open(archive) as opened:
        for info in opened:
            target = folder / info.name
            if info.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif (content := opened.extractfile(info)) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)


class Digests(NamedTuple):
    """SHA-256 and MD5 of a file, lower-case hex."""

    sha256: str
    md5: str


class _Broken(Exception):
    """The connection ended early; the part file holds what came."""


LOST_CONNECTION = (_Broken, urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)
"""Other errors of `OSError` concern the disk."""


def download(
    url: str,
    target: str | Path,
    sha256: str | None = None,
    md5: str | None = None,
    *,
    attempts: int = 5,
    timeout: float = 30.0,
    wait: float = 1.0,
    progress: bool = True,
) -> Digests:
    """Downloads ``url`` to ``target``, continues where an earlier call stopped, and checks known digests.

    What has arrived lies in ``NAME.part`` (and the server's version tag in ``NAME.part.tag``). It is
    continued with an HTTP Range request if a digest or a version tag can prove that both halves belong
    together; otherwise the download starts again. A target that exists is checked, not downloaded.

    Args:
        url: http or https address.
        target: the file to write; its folder is made.
        sha256, md5: known digests, or None.
        attempts: connections to try, each from where the last one broke.
        timeout, wait: seconds for one read, and before the second attempt (doubled each time).
        progress: show a bar in bytes.
    Returns:
        the computed digests of the file.
    Raises:
        UserError: unreachable, refused, broken after all attempts, wrong digest (the bad part is removed),
            or the disk is full.
    """
    target = Path(target)
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: only http and https addresses are downloaded")
    if target.exists():
        return _verify(target, target, sha256, md5)
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, attempts + 1):
            try:
                _continue(url, part, known=bool(sha256 or md5), timeout=timeout, progress=progress)
                break
            except LOST_CONNECTION as error:
                _raise_if_final(error, url, attempt, attempts)
            time.sleep(wait * 2 ** (attempt - 1))
        digests = _verify(part, target, sha256, md5)
        sync(part)
        os.replace(part, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{target}: the disk is full; free some space and run again (the download goes on)"
            ) from error
        reason = error.strerror or error
        raise UserError(f"{target}: cannot be written ({reason}); choose another --root") from error
    _tag_file(part).unlink(missing_ok=True)
    return digests


def _raise_if_final(error: Exception, url: str, attempt: int, attempts: int) -> None:
    """Raises a `UserError` if the server refuses or this was the last attempt."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code not in RETRIED_STATUSES or attempt == attempts:
            answer = f"{error.code} {error.reason}"
            raise UserError(f"{url}: the server answered {answer}; see the landing page") from error
    elif attempt == attempts:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: {reason} ({attempts} attempts); run again to go on") from error


def _verify(path: Path, target: Path, sha256: str | None, md5: str | None) -> Digests:
    """Returns the digests of ``path``; a part of ``target`` with a wrong one is removed."""
    with open(path, "rb") as stream:  # MD5 finds transfer errors: some archives publish nothing else
        found = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        while chunk := stream.read(CHUNK_BYTES):
            for digest in found:
                digest.update(chunk)
    digests = Digests(found[0].hexdigest(), found[1].hexdigest())
    for kind, wanted, got in (("SHA-256", sha256, digests.sha256), ("MD5", md5, digests.md5)):
        if wanted and wanted != got:
            message = f"{target}: {kind} is {got}, expected {wanted}"
            if path == target:
                raise UserError(f"{message}; delete the file and run again")
            path.unlink()
            _tag_file(path).unlink(missing_ok=True)
            raise UserError(f"{message}; the download was removed, run again")
    return digests


def _continue(url: str, part: Path, *, known: bool, timeout: float, progress: bool) -> None:
    """Opens one connection and appends to ``part``, or starts it again if server or evidence say so."""
    offset = part.stat().st_size if part.exists() else 0
    tag = _tag_file(part).read_text(encoding="utf-8") if _tag_file(part).exists() else ""
    if not (tag or known):
        offset = 0
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, "Accept-Encoding": "identity"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not offset:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{offset}":
            return  # the part is whole
        part.unlink()
        raise _Broken("the part file did not fit the server's file") from error
    with answer:
        start = offset if answer.status == 206 else 0  # else the server sends everything
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise _Broken("the server sent another range than requested")
        etag = answer.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        if strong:
            _tag_file(part).write_text(strong, encoding="utf-8")
        else:
            _tag_file(part).unlink(missing_ok=True)
        _receive(answer, part, start, progress)


def _receive(answer: http.client.HTTPResponse, part: Path, start: int, progress: bool) -> None:
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length else None
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024,
        desc=part.name.removesuffix(".part"), disable=None if progress else True,
    )  # fmt: skip
    received = start
    with bar, open(part, "r+b" if start else "wb") as stream:
        stream.seek(start)
        while chunk := answer.read(CHUNK_BYTES):
            stream.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received != total:
        raise _Broken(f"the connection ended after {received} of {total} bytes")


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


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
    for place in (folder, root) if root_is_set else (folder,):
        if matches(dataset, place):
            print(f"{dataset.name}: found in {place}; licence: {licence(dataset)}")
            return place
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
        found = [path for path in sorted(folder.glob(pattern)) if path.is_dir()]
        if len(found) != 1:
            problem = f"{len(found)} folders match {pattern} where one was expected"
            raise UserError(f"{folder}: {problem}; arrange it as {dataset.expect}")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(found[0], target)


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

"""Downloads that resume, and archives that unpack whole or not at all.

Our own code: MONAI's `download_url` starts again after each interruption, puts gigabytes into the system's
temporary folder and ignores missing permissions; its `extractall` knows neither ``.tar.xz`` nor ``.tar.bz2``
and leaves half a folder behind.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_folder, sync

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BY_HAND = (".7z", ".rar")
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile, tarfile and the decompressors raise for truncated, damaged or encrypted files."""
CHUNK_BYTES = 1 << 18
AGENT = "synthesis-data/1.0"
RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
"""Statuses worth another attempt: timeouts, too many requests, trouble of the server."""


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
        hashes = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        while chunk := stream.read(CHUNK_BYTES):
            for digest in hashes:
                digest.update(chunk)
    digests = Digests(hashes[0].hexdigest(), hashes[1].hexdigest())
    for kind, expected, actual in (("SHA-256", sha256, digests.sha256), ("MD5", md5, digests.md5)):
        if expected and expected != actual:
            message = f"{target}: {kind} is {actual}, expected {expected}"
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

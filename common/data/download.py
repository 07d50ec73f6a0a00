"""Downloads that can be interrupted: a ``.part`` file that grows, checked and renamed when it is whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.errors import UserError
from common.files import sync

CHUNK_BYTES = 1 << 18
AGENT = "synthesis-data/1.0"
# Statuses worth another try: time-outs, too many requests, and the server's own trouble.
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Digests:
    """SHA-256 and MD5 of one file, lower-case hex."""

    sha256: str
    md5: str


class _Broken(Exception):
    """The connection ended early; the part file holds what came."""


# What a lost connection looks like. The rest of OSError is the disk's.
BROKEN = (
    _Broken,
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


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
    """Fetches ``url`` into ``target``; goes on where an earlier call stopped; checks known digests.

    What has arrived lies in ``NAME.part`` (and the server's version tag in ``NAME.part.tag``). It is
    continued with an HTTP Range request if a digest or a version tag can prove that both halves belong
    together, else it is fetched anew. A target that exists is checked, not fetched.

    Args:
        url: http or https address.
        target: the file to write; its folder is made.
        sha256, md5: known digests, or None.
        attempts: connections to try, each from where the last one broke.
        timeout, wait: seconds for one read, and before the second attempt (doubled each time).
        progress: show a bar in bytes.
    Returns:
        the file's digests as computed.
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
        known = bool(sha256 or md5)
        _fetch(url, part, known=known, attempts=attempts, timeout=timeout, wait=wait, progress=progress)
        digests = _verify(part, target, sha256, md5)
        sync(part)
        os.replace(part, target)
    except OSError as error:
        raise _disk_error(error, target) from error
    _tag_file(part).unlink(missing_ok=True)
    return digests


def digests_of(path: str | Path) -> Digests:
    """SHA-256 and MD5 of a file, read once in chunks."""
    # MD5 only finds transfer errors here: some archives publish nothing else.
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
    return Digests(sha256.hexdigest(), md5.hexdigest())


def _verify(path: Path, target: Path, sha256: str | None, md5: str | None) -> Digests:
    found = digests_of(path)
    for kind, wanted, got in (("SHA-256", sha256, found.sha256), ("MD5", md5, found.md5)):
        if wanted and wanted != got:
            message = f"{target}: {kind} is {got}, expected {wanted}"
            if path == target:
                raise UserError(f"{message}; delete the file and run again")
            path.unlink()
            _tag_file(path).unlink(missing_ok=True)
            raise UserError(f"{message}; the download was removed, run again")
    return found


def _fetch(
    url: str, part: Path, *, known: bool, attempts: int, timeout: float, wait: float, progress: bool
) -> None:
    for attempt in range(1, attempts + 1):
        try:
            _continue(url, part, known=known, timeout=timeout, progress=progress)
            return
        except urllib.error.HTTPError as error:
            if error.code not in PASSING_STATUSES or attempt == attempts:
                answer = f"{error.code} {error.reason}"
                raise UserError(f"{url}: the server answered {answer}; see the landing page") from error
        except BROKEN as error:
            if attempt == attempts:
                reason = getattr(error, "reason", None) or error
                raise UserError(f"{url}: {reason} ({attempts} attempts); run again to go on") from error
        time.sleep(wait * 2 ** (attempt - 1))


def _continue(url: str, part: Path, *, known: bool, timeout: float, progress: bool) -> None:
    """One connection: appends to ``part``, or starts it anew where the server or the evidence says so."""
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
        _beyond_the_end(error, part, offset)
        return
    with answer:
        start = _start(answer, offset)
        _remember_tag(answer, part)
        _receive(answer, part, start, progress)


def _start(answer: http.client.HTTPResponse, offset: int) -> int:
    """Where the body belongs: ``offset`` if the server continues there, else 0 (it sends everything)."""
    if answer.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match and int(match[1]) == offset:
        return offset
    raise _Broken("the server sent another range than asked for")


def _beyond_the_end(error: urllib.error.HTTPError, part: Path, offset: int) -> None:
    """The server has nothing after ``offset``: the part is whole, or longer than the file and useless."""
    match = re.match(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    if match and int(match[1]) == offset:
        return
    part.unlink()
    raise _Broken("the part file did not fit the server's file") from error


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


def _remember_tag(answer: http.client.HTTPResponse, part: Path) -> None:
    """Keeps what identifies the server's version of the file (a strong ETag, else its date)."""
    etag = answer.headers.get("ETag", "")
    tag = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    if tag:
        _tag_file(part).write_text(tag, encoding="utf-8")
    else:
        _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _disk_error(error: OSError, target: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{target}: the disk is full; free some space and run again (the download goes on)")
    return UserError(f"{target}: cannot be written ({error.strerror or error}); choose another --root")

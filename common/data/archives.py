"""Unpacking archives of strangers: every member is checked before the first byte is written."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from common.data.new_folder import new_folder
from common.errors import UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BY_HAND = (".7z", ".rar")
# What zipfile, tarfile and the decompressors raise for files that are cut off, damaged or encrypted.
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Member:
    """What is checked of one entry: name, size in bytes, and whether it is a plain file or folder."""

    name: str
    size: int
    plain: bool


def is_archive(path: str | Path) -> bool:
    """True for names this module unpacks, or explains that it cannot (.7z, .rar)."""
    return str(path).lower().endswith((".zip", *TAR_SUFFIXES, *BY_HAND))


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
    lister, extractor = _tools(archive)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_members(lister(archive), archive, shutil.disk_usage(folder.parent).free)
        with new_folder(folder) as temporary:
            extractor(archive, temporary)
    except DAMAGED as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); delete it and run again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder} ({error.strerror or error})") from error
    return folder


def check_members(members: list[Member], archive: Path, free: int) -> None:
    """Refuses unsafe names, links and devices, and more than ``free`` bytes.

    Raises:
        UserError: names the archive and the first member that is unsafe.
    """
    for member in members:
        if _leaves(member.name):
            raise UserError(f"{archive}: member {member.name!r} leads out of the folder; nothing unpacked")
        if not member.plain:
            raise UserError(f"{archive}: member {member.name!r} is a link or a device; nothing unpacked")
    total = sum(member.size for member in members)
    if total > free:
        sizes = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise UserError(f"{archive}: unpacks to {sizes}; nothing was unpacked, make room and run again")


def _leaves(name: str) -> bool:
    """True for absolute names, drive letters and "..", in the notation of either system."""
    paths = (PurePosixPath(name), PureWindowsPath(name))
    return any(path.is_absolute() or path.anchor or ".." in path.parts for path in paths)


def _tools(archive: Path) -> tuple[Callable[[Path], list[Member]], Callable[[Path, Path], None]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members, _extract_zip
    if name.endswith(TAR_SUFFIXES):
        return _tar_members, _extract_tar
    if name.endswith(BY_HAND):
        raise UserError(f"{archive}: {archive.suffix} is not supported; unpack it by hand and run again")
    raise UserError(f"{archive}: not a zip or tar archive; unpack it by hand and run again")


def _zip_members(archive: Path) -> list[Member]:
    with zipfile.ZipFile(archive) as opened:
        return [Member(info.filename, info.file_size, _plain_zip_entry(info)) for info in opened.infolist()]


def _plain_zip_entry(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on a Unix system
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def _tar_members(archive: Path) -> list[Member]:
    with tarfile.open(archive) as opened:
        return [Member(info.name, info.size, info.isreg() or info.isdir()) for info in opened]


def _extract_tar(archive: Path, folder: Path) -> None:
    """The checked members' content alone, without owners, modes or links.

    So it needs no ``filter="data"``, which came with Python 3.11.4 only.
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

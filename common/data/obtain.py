"""Brings a registered set to disk: finds it, downloads and unpacks it, or says how to get it."""

from __future__ import annotations

import os
from pathlib import Path

from common.data.archives import is_archive, unpack
from common.data.download import download
from common.data.registry import Dataset, RemoteFile
from common.data.sources import fits
from common.errors import UserError


def obtain(dataset: Dataset, root: str | Path, *, root_is_set: bool = False, progress: bool = True) -> Path:
    """The folder that holds the set, downloaded and unpacked where the registry lists its files.

    Args:
        dataset: the entry.
        root: folder of all sets; this one lies in ``root/NAME``.
        root_is_set: ``root`` itself may be the unpacked set.
        progress: show download bars.
    Raises:
        UserError: the set has to be fetched by hand (how is printed before), or a download failed.
    """
    root = Path(root)
    folder = root / dataset.name
    for place in (folder, root) if root_is_set else (folder,):
        if fits(dataset, place):
            print(f"{dataset.name}: found in {place}; licence: {licence(dataset)}")
            return place
    print(instructions(dataset, root))
    if not dataset.files:
        what = f"does not look like {dataset.name}" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; fetch the set by hand as told above and run again")
    for file in dataset.files:
        fetch(file, folder, progress=progress)
    arrange(dataset, folder)
    if not fits(dataset, folder):
        raise UserError(f"{folder}: the download does not hold what was expected ({dataset.expect})")
    return folder


def fetch(file: RemoteFile, folder: Path, *, progress: bool = True) -> None:
    """Downloads one file into ``folder``, prints its digest where none was known, and unpacks an archive."""
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
    """What a person has to do to get the set, in a few lines."""
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
    """The licence as stated at the source, or where to look."""
    return dataset.licence or f"not confirmed, see {dataset.landing_page}"


def table(registry: dict[str, Dataset]) -> str:
    """All sets, one a line: name, how to get it, licence, what."""
    width = max(len(name) for name in registry)
    rows = [f"{'name':<{width}}  {'get':<8}  {'licence':<24.24}  what"]
    for name, dataset in registry.items():
        how = "download" if dataset.files else "sign-up" if dataset.sign_up else "by hand"
        rows.append(f"{name:<{width}}  {how:<8}  {dataset.licence or 'see page':<24.24}  {dataset.what}")
    return "\n".join(rows)

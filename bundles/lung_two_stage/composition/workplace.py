"""The folder of a set of composites: one command at a time, its plan and its description."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from bundles.lung_two_stage.composition.planning import make_plan
from bundles.lung_two_stage.composition.reading import DESCRIPTION
from bundles.lung_two_stage.composition.rendering import categories_of
from bundles.lung_two_stage.composition.settings import Settings
from bundles.lung_two_stage.composition.shards import MANIFEST, PROGRESS, ShardSet
from common.errors import UserError
from common.files import atomic_write, explained, read_json, remove_leftovers, write_json

LOCK, PLAN = ".composing.lock", "plan.npy"
Description = dict[str, Any]


@contextmanager
def alone_in(settings: Settings) -> Iterator[None]:
    """Makes the folder and holds its lock; waits for another command that is at work there.

    The system frees the lock with its holder, however that ended; what a killed one left half-written is
    removed.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = settings.folder
    with explained(folder):
        (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    with file:
        with suppress(OSError):  # a file system without locks: every file is renamed into place anyway
            _lock(file.fileno(), settings)
        for place in (folder, folder / PROGRESS):
            remove_leftovers(place)
        yield


def planned(settings: Settings) -> Description:
    """The description of the set, after its plan was made where there was none.

    Raises:
        UserError: a source is not fit, or the folder holds another set.
    """
    nodules, normals = settings.banks()
    presence, asked = settings.presence(), settings.asked()
    categories = categories_of(nodules, asked["categories"])
    path = settings.folder / DESCRIPTION
    if path.is_file() and (settings.folder / PLAN).is_file():
        return _same(read_json(path), asked, settings)
    plan, account = make_plan(nodules, normals, presence, settings.rules)
    (settings.folder / MANIFEST).unlink(missing_ok=True)  # shards of a plan that is not there any more
    shutil.rmtree(settings.folder / PROGRESS)
    with atomic_write(settings.folder / PLAN) as temporary:
        np.save(temporary, plan)
    description = {
        "count": len(plan),
        "image_size": list(normals.hu.shape[1:]),
        "format": settings.file_format,
        "window_hu": asked["window_hu"],
        "categories": categories,
        "nominal_hu": any(record.nominal_hu for record in normals.records),
        "models": settings.models(),
        "asked": asked,
        "account": vars(account),
    }
    write_json(path, description)  # last: with it the plan is there
    return description


def read_plan(settings: Settings) -> np.ndarray:
    """The plan, on disk."""
    plan: np.ndarray = np.load(settings.folder / PLAN, mmap_mode="r")
    return plan


def shards_of(settings: Settings, description: Description) -> ShardSet:
    """The set's shards."""
    return ShardSet(settings.folder, description["count"], settings.per_shard)


def _same(description: Description, asked: dict[str, Any], settings: Settings) -> Description:
    there = description["asked"]
    for key, value in asked.items():
        if there.get(key) != value:
            what = "" if len(f"{there.get(key)}{value}") > 40 else f" ({there.get(key)}, not {value})"
            raise UserError(
                f"{settings.folder}: holds composites with other {key}{what}; choose another --output_dir"
            )
    return description


def _lock(descriptor: int, settings: Settings) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{settings.folder}: waiting for another command that composes there", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

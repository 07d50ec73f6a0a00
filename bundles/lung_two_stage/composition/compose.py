"""A million composites: planned, rendered, written to shards. What the config and the script call."""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from tqdm import tqdm

from bundles.lung_two_stage.composition.plan import Account, draw_groups, make_plan, outlines_of
from bundles.lung_two_stage.composition.render import Renderer, categories_of
from bundles.lung_two_stage.composition.settings import Settings
from bundles.lung_two_stage.composition.shards import (
    DESCRIPTION,
    MANIFEST,
    PROGRESS,
    Member,
    ShardSet,
    TarWriter,
)
from common.errors import UserError
from common.files import atomic_write, read_json, remove_leftovers, write_errors, write_json
from common.handlers.logging import pace
from common.training import distributed

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
    with write_errors(folder):
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
    nodules, healthy_slices = settings.banks()
    presence, asked = settings.presence(), settings.asked()
    categories = categories_of(nodules, asked["categories"])
    path = settings.folder / DESCRIPTION
    if path.is_file() and (settings.folder / PLAN).is_file():
        return _same(read_json(path), asked, settings)
    plan, account = make_plan(nodules, healthy_slices, presence, settings.rules)
    (settings.folder / MANIFEST).unlink(missing_ok=True)  # shards of a plan that is not there any more
    shutil.rmtree(settings.folder / PROGRESS)
    with atomic_write(settings.folder / PLAN) as temporary:
        np.save(temporary, plan)
    description = {
        "count": len(plan),
        "image_size": list(healthy_slices.hu.shape[1:]),
        "format": settings.file_format,
        "window_hu": asked["window_hu"],
        "categories": categories,
        "nominal_hu": any(record.nominal_hu for record in healthy_slices.records),
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


Advance = Callable[[int], object]


def write_shards(settings: Settings, shards: ShardSet, chosen: Sequence[int], advance: Advance) -> None:
    """Writes the chosen shards.

    Args:
        advance: called with the number of composites that were rendered since the last call.
    Raises:
        UserError: the disk is full, or the system ended a worker. The shards that are whole stay.
    """
    if settings.num_workers < 2:
        for shard in chosen:
            shards.write(shard, _members(settings, shards.numbers(shard), advance))
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(settings.num_workers, len(chosen) or 1), context, _begin)
    try:
        futures = [pool.submit(_write_shard, settings, shards, shard) for shard in chosen]
        for future in as_completed(futures):
            advance(future.result())
    except BrokenProcessPool as error:
        raise UserError(
            f"{shards.folder}: the system ended a worker (memory?); run the same command with fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=1)
def renderer_of(settings: Settings) -> Renderer:
    """This process's renderer of a planned set."""
    nodules, healthy_slices = settings.banks()
    outlines, rules = outlines_of(nodules), settings.rules
    groups = draw_groups(rules.seed, rules.groups, outlines.usable, rules.most_nodules)
    plan, categories = read_plan(settings), settings.categories()
    return Renderer(nodules, healthy_slices, groups, outlines, plan, rules.seed, categories)


def _members(settings: Settings, numbers: range, advance: Advance) -> Iterator[Member]:
    renderer, form = renderer_of(settings), settings.form
    for number in numbers:
        yield renderer.member(number, form)
        advance(1)


def _write_shard(settings: Settings, shards: ShardSet, shard: int) -> int:
    """In a worker: one shard; returns how many composites it has."""
    return shards.write(shard, _members(settings, shards.numbers(shard), lambda _: None)).count


def _begin() -> None:
    """In a worker: leaves interrupts to the parent, and ends when the parent is gone, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


SAMPLED = 16
"""Composites rendered to know how large all will be."""


def compose(settings: Settings) -> None:
    """Makes the set of composites that ``settings`` ask for, or what is missing of it.

    Stopped at any point and called again it writes the same files. Of the processes of
    ``torch.distributed.run`` each takes a part of the shards.

    Raises:
        UserError: a source is not fit, the folder holds another set, or the disk has not enough space.
    """
    renderer_of.cache_clear()  # the sources may have changed since an earlier call
    distributed.start("cpu")
    try:
        with alone_in(settings) if distributed.is_main() else nullcontext():
            job = _prepared(settings) if distributed.is_main() else None
            description, missing = distributed.gather(job)[0]  # the others wait here for the plan
            shards = shards_of(settings, description)
            _render(settings, shards, missing)
            if shards.finish():  # whichever process ends last
                print(
                    f"{shards.count} composites in {len(shards)} shards: {shards.folder / MANIFEST}",
                    flush=True,
                )
    finally:
        distributed.stop()


def _prepared(settings: Settings) -> tuple[Description, list[int]]:
    """The plan, told; the shards to be written, which the disk has space for."""
    description = planned(settings)
    print(told(Account(**description["account"])), flush=True)
    shards = shards_of(settings, description)
    missing = shards.missing()
    check_space(settings, shards, missing)
    return description, missing


def told(account: Account) -> str:
    """One line: what is kept of how many combinations, and what could not be placed."""
    skipped = account.impossible()
    return (
        f"{account.kept} of {account.combinations} combinations kept, farthest from the lung's edge"
        f"{f'; skipped: {skipped}' if skipped else ''}"
    )


def check_space(settings: Settings, shards: ShardSet, missing: list[int]) -> None:
    """Prints what the missing shards will take on the disk.

    Raises:
        UserError: more than it has.
    """
    if not missing:
        return
    count = sum(len(shards.numbers(shard)) for shard in missing)
    needed, free = bytes_needed(settings, shards, missing), shutil.disk_usage(shards.folder).free
    height, width = renderer_of(settings).healthy_slices.hu.shape[1:]
    line = (
        f"{count} composites of {height} x {width} as {settings.file_format} in {len(missing)} shards take "
        f"{needed / 1e9:.3g} GB; {shards.folder} has {free / 1e9:.3g} GB free"
    )
    print(line, flush=True)
    if needed > free:
        raise UserError(f"{line}: lower --count, free some space, or choose another --output_dir")


def bytes_needed(settings: Settings, shards: ShardSet, chosen: Sequence[int]) -> float:
    """What the chosen shards will take, from a few composites spread over the whole set."""
    renderer, form = renderer_of(settings), settings.form
    numbers = range(0, shards.count, -(-shards.count // SAMPLED))
    tar = TarWriter(io.BytesIO())
    for number in numbers:
        member = renderer.member(number, form)
        for suffix, content in member.files.items():
            tar.add(f"{member.key}.{suffix}", content)
    count = sum(len(shards.numbers(shard)) for shard in chosen)
    return count * tar.size / len(numbers) + len(chosen) * tarfile.RECORDSIZE  # the end of each archive


def _render(settings: Settings, shards: ShardSet, missing: list[int]) -> None:
    """This process's part of the missing shards, with a bar."""
    rank, ranks = distributed.rank(), distributed.ranks()
    mine = missing[rank::ranks]
    total = sum(len(shards.numbers(shard)) for shard in mine)
    part = f"composing, process {rank + 1} of {ranks}" if ranks > 1 else "composing"
    with tqdm(
        total=total, desc=part, unit="image", disable=not distributed.is_main() or not mine, **pace()
    ) as bar:
        write_shards(settings, shards, mine, bar.update)

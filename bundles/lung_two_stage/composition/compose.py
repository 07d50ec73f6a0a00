"""Makes a set of composites, up to millions: plans, renders and writes shards."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from bundles.lung_two_stage.composition.plan import PlacementStats, draw_groups, make_plan, measure_nodules
from bundles.lung_two_stage.composition.render import Renderer, category_order
from bundles.lung_two_stage.composition.settings import ComposeSettings
from bundles.lung_two_stage.composition.shards import DESCRIPTION, MANIFEST, PROGRESS, Member, ShardSet
from common.errors import UserError
from common.files import atomic_write, read_json, remove_leftovers, write_errors, write_json
from common.handlers.logging import pace
from common.training import distributed

LOCK, PLAN = ".composing.lock", "plan.npy"
SAMPLED = 16
"""Composites that are rendered to estimate the size of all."""
Description = dict[str, Any]
Advance = Callable[[int], object]


def compose(settings: ComposeSettings) -> None:
    """Makes the set of composites that ``settings`` describe, or what is missing of it.

    Stopped at any point and called again, it writes the same files. Of the processes of
    ``torch.distributed.run`` each writes some of the shards.

    Raises:
        UserError: a source is not valid, the folder holds another set, or the disk has not enough space.
    """
    renderer_of.cache_clear()  # the sources may have changed since an earlier call
    distributed.start("cpu")
    main = distributed.is_main()
    try:
        with exclusive_folder(settings) if main else nullcontext():
            work = _prepare(settings) if main else None
            description, missing = distributed.gather(work)[0]  # the other processes wait here for the plan
            shards = ShardSet(settings.folder, description["count"], settings.per_shard)
            mine = missing[distributed.rank() :: distributed.ranks()]
            total = sum(len(shards.numbers(shard)) for shard in mine)
            hidden = not main or not mine
            with tqdm(total=total, desc="composing", unit="image", disable=hidden, **pace()) as bar:
                write_shards(settings, shards, mine, bar.update)
            if shards.finish():  # the process that ends last
                manifest = shards.folder / MANIFEST
                print(f"{shards.count} composites in {len(shards)} shards: {manifest}", flush=True)
    finally:
        distributed.stop()


@contextmanager
def exclusive_folder(settings: ComposeSettings) -> Iterator[None]:
    """Makes the output folder and locks it; waits for another command that works there.

    The system frees the lock with its holder, however that ended. Temporary files of a killed one are
    removed.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = settings.folder
    lock = FileLock(folder / LOCK)
    with write_errors(folder):
        (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{folder}: waiting for another command that composes there", flush=True)
            lock.acquire()
    try:
        for place in (folder, folder / PROGRESS):
            remove_leftovers(place)
        yield
    finally:
        lock.release()


def read_or_make_plan(settings: ComposeSettings) -> Description:
    """Makes the plan if there is none, and returns the description of the set.

    Raises:
        UserError: a source is not valid, or the folder holds another set.
    """
    nodules, healthy_slices = settings.banks()
    presence, identity = settings.presence(), settings.identity()
    categories = category_order(nodules, identity["categories"])
    path, plan_path = settings.folder / DESCRIPTION, settings.folder / PLAN
    if path.is_file() and plan_path.is_file():
        description: Description = read_json(path)
        _check_same(description["asked"], identity, settings)
        return description
    plan, stats = make_plan(nodules, healthy_slices, presence, settings.plan)
    (settings.folder / MANIFEST).unlink(missing_ok=True)  # of a plan that is gone
    shutil.rmtree(settings.folder / PROGRESS)
    with atomic_write(plan_path) as temporary:
        np.save(temporary, plan)
    description = {
        "count": len(plan),
        "image_size": list(healthy_slices.hu.shape[1:]),
        "format": settings.file_format,
        "window_hu": identity["window_hu"],
        "categories": categories,
        "nominal_hu": any(record.nominal_hu for record in healthy_slices.records),
        "models": settings.models(),
        "asked": identity,
        "account": vars(stats),
    }
    write_json(path, description)  # last: with it the plan is valid
    return description


def _check_same(existing: dict[str, Any], identity: dict[str, Any], settings: ComposeSettings) -> None:
    """Raises `UserError` if the folder's set was made with other settings or sources."""
    for key, value in identity.items():
        if existing.get(key) != value:
            values = f" ({existing.get(key)}, not {value})"
            shown = values if len(values) < 50 else ""  # no hashes
            raise UserError(
                f"{settings.folder}: holds composites with other {key}{shown}; choose another --output_dir"
            )


def _prepare(settings: ComposeSettings) -> tuple[Description, list[int]]:
    """The description, and the shards to be written, for which the disk has space."""
    description = read_or_make_plan(settings)
    stats = PlacementStats(**description["account"])
    failures = stats.failures()
    print(
        f"{stats.kept} of {stats.combinations} combinations kept, farthest from the lung's edge"
        f"{f'; skipped: {failures}' if failures else ''}",
        flush=True,
    )
    shards = ShardSet(settings.folder, description["count"], settings.per_shard)
    missing = shards.missing()
    if missing:
        _check_space(settings, shards, missing)
    return description, missing


def _check_space(settings: ComposeSettings, shards: ShardSet, missing: Sequence[int]) -> None:
    """Prints the size of the missing shards; raises `UserError` if the disk has less space."""
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


def bytes_needed(settings: ComposeSettings, shards: ShardSet, chosen: Sequence[int]) -> float:
    """Estimates the size of shards from a few composites of the whole set."""
    renderer, file_format = renderer_of(settings), settings.format
    numbers = range(0, shards.count, -(-shards.count // SAMPLED))
    each = sum(renderer.member(number, file_format).size for number in numbers) / len(numbers)
    count = sum(len(shards.numbers(shard)) for shard in chosen)
    return count * each + len(chosen) * tarfile.RECORDSIZE  # the end of each archive


def write_shards(
    settings: ComposeSettings, shards: ShardSet, chosen: Sequence[int], advance: Advance
) -> None:
    """Renders and writes some shards, in this process or in ``num_workers`` of its own.

    Args:
        settings: of the set, whose plan exists.
        shards: the set's.
        chosen: numbers of the shards.
        advance: called with the number of composites rendered since the last call.
    Raises:
        UserError: the disk is full, or the system ended a worker. Complete shards stay.
    """
    if settings.num_workers < 2:
        for shard in chosen:
            shards.write(shard, _members(settings, shards.numbers(shard), advance))
        return
    workers = min(settings.num_workers, len(chosen) or 1)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
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
def renderer_of(settings: ComposeSettings) -> Renderer:
    """This process's renderer of a planned set."""
    nodules, healthy_slices = settings.banks()
    geometry, plan = measure_nodules(nodules), settings.plan
    groups = draw_groups(plan.seed, plan.groups, geometry.usable, plan.most_nodules)
    entries = np.load(settings.folder / PLAN, mmap_mode="r")
    return Renderer(nodules, healthy_slices, groups, geometry, entries, plan.seed, settings.categories())


def _members(settings: ComposeSettings, numbers: range, advance: Advance) -> Iterator[Member]:
    renderer, file_format = renderer_of(settings), settings.format
    for number in numbers:
        yield renderer.member(number, file_format)
        advance(1)


def _write_shard(settings: ComposeSettings, shards: ShardSet, shard: int) -> int:
    """Writes one shard in a worker; returns its number of composites."""
    return shards.write(shard, _members(settings, shards.numbers(shard), lambda _: None)).count


def _start_worker() -> None:
    """In a worker: leaves interrupts to the parent, and ends with it, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)

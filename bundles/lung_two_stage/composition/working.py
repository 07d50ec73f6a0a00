"""Shards written by this process or by several, each process with a renderer of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing.process import BaseProcess

from bundles.lung_two_stage.composition.groups import draw_groups
from bundles.lung_two_stage.composition.outlines import outlines_of
from bundles.lung_two_stage.composition.rendering import Renderer
from bundles.lung_two_stage.composition.settings import Settings
from bundles.lung_two_stage.composition.shards import Member, ShardSet
from bundles.lung_two_stage.composition.workplace import read_plan
from common.errors import UserError

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
    nodules, normals = settings.banks()
    outlines, rules = outlines_of(nodules), settings.rules
    groups = draw_groups(rules.seed, rules.groups, outlines.usable, rules.most_nodules)
    plan, categories = read_plan(settings), settings.categories()
    return Renderer(nodules, normals, groups, outlines, plan, rules.seed, categories)


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

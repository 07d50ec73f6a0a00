"""Makes a set of composites, up to millions: plans, renders and writes shards."""

from __future__ import annotations

import hashlib
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
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.plan import (
    PlacementStats,
    PlanSettings,
    draw_groups,
    make_plan,
    measure_nodules,
)
from bundles.lung_two_stage.composition.render import Renderer, category_order
from bundles.lung_two_stage.composition.shards import (
    DESCRIPTION,
    MANIFEST,
    PROGRESS,
    FileFormat,
    Member,
    ShardSet,
)
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.errors import UserError, check_int
from common.files import atomic_write, read_json, remove_leftovers, write_errors, write_json
from common.handlers.logging import pace
from common.training import distributed

LOCK, PLAN = ".composing.lock", "plan.npy"
SAMPLED = 16
"""Composites that are rendered to estimate the size of all."""
Description = dict[str, Any]
Advance = Callable[[int], object]
GENERATION_REPORT = "generation.json"
"""Lies in the folder of generated banks and names the models."""
EVEN = "even"
MOST_NODULES = 16
BLENDING = "opaque rims"
"""How nodules are blended; sets that were begun with another blending are not continued."""
_LEAST = {"groups": 1, "nodules_per_group": 1, "attempts": 1, "per_shard": 1, "seed": 0, "num_workers": 0}


@dataclass(frozen=True)
class ComposeSettings:
    """Sources, plan and file format of a set of composites.

    Args:
        nodules_dir: a `NoduleBank`.
        healthy_slices_dir: a `SliceBank` without nodules.
        output_dir: gets the shards; the same settings continue an unfinished set.
        presence_file: a `PresenceMap`; None for a uniform one.
        categories_file: JSON that lists under ``categories`` what mask values 1, 2, ... stand for, as the
            extraction writes it; None for the nodules' own categories in alphabetical order.
        count: composites kept of all combinations, those farthest from the lung's edge; None for 40 %.
        groups: nodule groups; each is combined with each healthy slice.
        nodules_per_group: at most.
        attempts: draws of a nodule's position before the combination is given up.
        per_shard: composites in a tar file.
        file_format, window: see `FileFormat`.
        seed: of all random draws.
        num_workers: processes that render; 0 for this one alone.
    Raises:
        UserError: a number or the format is not valid.

    Example:
        >>> settings = ComposeSettings("nodules", "healthy_slices", "out", groups=100, file_format="png")
        >>> settings.plan.groups, settings.format.hu_window
        (100, Window(lower=-1000, upper=400))
    """

    nodules_dir: str
    healthy_slices_dir: str
    output_dir: str
    presence_file: str | None = None
    categories_file: str | None = None
    count: int | None = None
    groups: int = 5000
    nodules_per_group: int = 3
    attempts: int = 50
    per_shard: int = 1000
    file_format: str = "npy"
    window: str | tuple[float, float] | None = None
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            object.__setattr__(self, name, check_int(name, getattr(self, name), least))
        if self.count is not None:
            object.__setattr__(self, "count", check_int("count", self.count, least=1))
        if self.nodules_per_group > MOST_NODULES:
            raise UserError(f"nodules_per_group {self.nodules_per_group}: give at most {MOST_NODULES}")
        if isinstance(self.window, Sequence) and not isinstance(self.window, str):
            object.__setattr__(self, "window", tuple(self.window))  # hashable
        _ = self.format.hu_window  # refuses an unknown format or window now

    @property
    def folder(self) -> Path:
        """Where the shards go."""
        return Path(self.output_dir)

    @property
    def format(self) -> FileFormat:
        """Format of the files in the shards."""
        return FileFormat(self.file_format, self.window)

    @property
    def plan(self) -> PlanSettings:
        """The settings that the plan depends on."""
        return PlanSettings(self.count, self.groups, self.nodules_per_group, self.attempts, self.seed)

    def banks(self) -> tuple[NoduleBank, SliceBank]:
        """Nodules and healthy slices, memory-mapped.

        Raises:
            UserError: one is missing or damaged.
        """
        return NoduleBank.load(self.nodules_dir, mapped=True), SliceBank.load(
            self.healthy_slices_dir, mapped=True
        )

    def models(self) -> dict[str, str | None]:
        """SHA-256 of the models that drew nodules and healthy slices; None for banks of real images."""
        reports = {
            name: Path(folder, GENERATION_REPORT)
            for name, folder in (("nodules", self.nodules_dir), ("healthy_slices", self.healthy_slices_dir))
        }
        return {
            name: read_json(path).get("model_sha256") if path.is_file() else None
            for name, path in reports.items()
        }

    def presence(self) -> PresenceMap:
        """The probability of a nodule at each position in a lung.

        Raises:
            UserError: the file is missing or damaged.
        """
        if self.presence_file is None:
            return PresenceMap.from_points(())
        return PresenceMap.load(self.presence_file)

    def categories(self) -> list[str]:
        """Names of the mask values in their order; empty where ``categories_file`` is None.

        Raises:
            UserError: the file is missing, or lists no names.
        """
        content = {"categories": []} if self.categories_file is None else read_json(self.categories_file)
        names = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.categories_file}: lists no names under categories; give extraction.json")
        return names

    def identity(self) -> dict[str, Any]:
        """Everything that the bytes of the result depend on, as plain JSON; sources by their SHA-256."""
        window = self.format.hu_window
        return {
            **asdict(self.plan),
            "blending": BLENDING,
            "per_shard": self.per_shard,
            "format": self.file_format,
            "window_hu": None if window is None else [window.lower, window.upper],
            "nodules": _sha256(self.nodules_dir, ("hu.npy", "alpha.npy", "records.json")),
            "healthy_slices": _sha256(self.healthy_slices_dir, ("hu.npy", "lung.npy", "records.json")),
            "categories": self.categories(),
            "presence": EVEN if self.presence_file is None else _sha256(self.presence_file),
        }


def _sha256(path: str | os.PathLike[str], names: Sequence[str] = ("",)) -> str:
    """SHA-256 of the SHA-256s of a file, or of files in a folder."""
    whole = hashlib.sha256()
    for name in names:
        with Path(path, name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def compose(settings: ComposeSettings) -> None:
    """Makes the set of composites that ``settings`` describe, or what is missing of it.

    Stopped at any point and called again, it writes the same files. Of the processes of
    ``torch.distributed.run`` each writes some of the shards.

    Raises:
        UserError: a source is not valid, the folder holds another set, or the disk has not enough space.

    Example:
        >>> from tempfile import mkdtemp
        >>> from bundles.lung_two_stage.banks import NoduleRecord, SliceRecord
        >>> folder, lung = mkdtemp(), np.ones((1, 16, 16), np.uint8)
        >>> hu, alpha = np.full(lung.shape, -850, np.int16), np.zeros((1, 8, 8), np.uint8)
        >>> alpha[0, 3:5, 3:5] = 255
        >>> crop = np.where(alpha, 30, -850).astype(np.int16)
        >>> nodules = NoduleBank(crop, alpha, [NoduleRecord("n", "q", "", 2.0, 1.0)]).save(folder + "/n")
        >>> slices = SliceBank(hu, lung, 0 * lung, [SliceRecord("s", "p", 1.0)]).save(folder + "/slices")
        >>> settings = ComposeSettings(str(nodules), str(slices), folder + "/out", count=2, groups=4)
        >>> compose(settings)  # doctest: +ELLIPSIS
        2 of 4 combinations kept...
        2 composites in 1 shards: ...manifest.jsonl
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
        for path in (folder, folder / PROGRESS):
            remove_leftovers(path)
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

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

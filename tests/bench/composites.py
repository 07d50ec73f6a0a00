"""Composites of 256 x 256: rendering them to shards, and choosing a million of 2.5 million combinations."""

from __future__ import annotations

import atexit
import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, shift, zoom

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.composition.compose import (
    ComposeSettings,
    exclusive_folder,
    read_or_make_plan,
    renderer_of,
    write_shards,
)
from bundles.lung_two_stage.composition.patches import (
    FADE,
    MIXED_MM,
    NODULE_ALPHA,
    SOFT_TISSUE,
    estimate_noise,
    high_pass,
    make_noise,
)
from bundles.lung_two_stage.composition.plan import PlanSettings, draw_groups, make_plan, measure_nodules
from bundles.lung_two_stage.composition.render import RANGE
from bundles.lung_two_stage.composition.shards import ShardSet
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from tests.bench.harness import NotMeasurable, Result, Work, alternate, benchmark, extra_megabytes, seconds

COUNT, PER_SHARD, PLAIN, REPEATS = 4000, 500, 60, 5
LEAST_RATE, MOST_GROWTH = 400.0, 20.0
FEW, MANY = 1, 8  # shards


@benchmark("render_composites")
def render_composites() -> Result:
    """Images a second of one process, rendered, hashed and synced to disk, against the goal of 400.

    PNG's rate, 8 and 16 bits, is printed beside it.
    """
    ours, png, png16 = (writing(kind, FEW) for kind in ("npy", "png", "png16"))
    for work in (ours, png, png16):
        work()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(png), REPEATS)
    rates = [PER_SHARD / time for time in (fast, slow, seconds(png16))]
    print(f"render_composites: as png {rates[1]:.0f} images/s, as png16 {rates[2]:.0f} images/s")
    return Result("render_composites", rates[0] / LEAST_RATE, 1.0, rates[0], LEAST_RATE, "images/s", REPEATS)


@benchmark("render_composites_plain")
def render_composites_plain() -> Result:
    """The same against whole-slice arithmetic, resampling each time anew, tarfile, and hashing the file."""
    ours, baseline = writing("npy", FEW), plain_writing()
    ours(), baseline()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    rate, plain_rate = PER_SHARD / fast, PLAIN / slow
    name = "render_composites_plain"
    return Result(name, rate / plain_rate, 3.0, rate, plain_rate, "images/s", REPEATS)


@benchmark("render_composites_memory_growth")
def render_composites_memory_growth() -> Result:
    """What eight shards take beyond one, MB."""
    few, many = (functools.partial(writing, "npy", shards) for shards in (FEW, MANY))
    small, large = alternate(lambda: extra_megabytes(few), lambda: extra_megabytes(many), REPEATS)
    growth, name = large - small, "render_composites_memory_growth"
    return Result(name, MOST_GROWTH / max(growth, 0.1), 1.0, growth, MOST_GROWTH, "MB", REPEATS)


@benchmark("render_composites_ranks")
def render_composites_ranks() -> Result:
    """Two processes, each with its share of the shards, against one with all; both are warm."""
    if (os.cpu_count() or 1) < 2:
        raise NotMeasurable("one core only")
    settings, _ = prepared("npy")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        write = functools.partial(_write, settings)
        whole, halves = [[0, 1, 2, 3]], [[0, 1], [2, 3]]
        list(pool.map(write, [[0], [1]]))
        both, alone = alternate(
            lambda: seconds(lambda: list(pool.map(write, halves))),
            lambda: seconds(lambda: list(pool.map(write, whole))),
            REPEATS,
        )
    rates = [4 * PER_SHARD / time for time in (both, alone)]
    return Result("render_composites_ranks", alone / both, 1.7, *rates, "images/s", REPEATS)


@cache
def prepared(kind: str) -> tuple[ComposeSettings, ShardSet]:
    """A read_or_make_plan set, nothing of it rendered."""
    settings = small_set(f"{kind}_{os.getpid()}", count=COUNT, per_shard=PER_SHARD, file_format=kind)
    with exclusive_folder(settings):
        read_or_make_plan(settings)
    return settings, ShardSet(settings.folder, COUNT, PER_SHARD)


def writing(kind: str, count: int) -> Work:
    """Writes the first ``count`` shards of a set."""
    settings, shards = prepared(kind)
    renderer_of(settings)

    def work() -> None:
        write_shards(settings, shards, range(count), lambda _: None)

    return work


def _write(settings: ComposeSettings, chosen: list[int]) -> None:
    write_shards(settings, ShardSet(settings.folder, COUNT, PER_SHARD), chosen, lambda _: None)


def plain_writing() -> Work:
    """As one would write it."""
    settings, _ = prepared("npy")
    renderer = renderer_of(settings)
    path = place() / "plain.tar"

    def work() -> None:
        random = np.random.default_rng(0)
        with tarfile.open(path, "w") as tar:
            for number in range(PLAIN):
                record = renderer.record(number)
                image, mask = plain_composite(settings, record, random)
                for suffix, content in (("image.npy", image), ("mask.npy", mask)):
                    file = io.BytesIO()
                    np.save(file, content)
                    _add(tar, f"{number:09d}.{suffix}", file.getvalue())
                _add(tar, f"{number:09d}.json", json.dumps(record).encode())
        hashlib.sha256(Path(path).read_bytes()).hexdigest()
        with path.open("rb") as written:
            os.fsync(written.fileno())

    return work


def plain_composite(
    settings: ComposeSettings, record: dict[str, Any], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Contrast and noise match_contrast, mixed and masked on the whole slice."""
    renderer = renderer_of(settings)
    normal = record["index"] // settings.groups
    inside = renderer.healthy_slices.lung[normal] > 0
    image, mask = renderer.healthy_slices.hu[normal].astype(np.float32), np.zeros((SIZE, SIZE), np.uint8)
    level = float(np.median(image[inside]))
    noise = estimate_noise(high_pass(image)[inside])
    names = {known.name: number for number, known in enumerate(renderer.nodules.records)}
    for nodule in record["nodules"]:
        number = names[nodule["name"]]
        middle = np.array([nodule["row"], nodule["column"]])
        layers = []
        for crop in (renderer.nodules.hu[number], renderer.nodules.alpha[number]):
            small = zoom(crop.astype(np.float32), CROP_MM / SPACING_MM, order=1)
            layer = np.full((SIZE, SIZE), small[0, 0], np.float32)
            layer[: len(small), : len(small)] = small
            layers.append(shift(layer, middle - (len(small) - 1) / 2, order=1, mode="nearest"))
        drawn, mixed = layers[1] >= NODULE_ALPHA, MIXED_MM + SPACING_MM
        away = distance_transform_edt(~drawn) * SPACING_MM
        alpha = np.clip(((1 + FADE) * mixed - away) / (FADE * mixed), 0, 1) * inside
        own = float(np.median(renderer.nodules.hu[number][renderer.nodules.alpha[number] == 0]))
        values = SOFT_TISSUE + (SOFT_TISSUE - level) / (SOFT_TISSUE - own) * (layers[0] - SOFT_TISSUE)
        lacking = np.sqrt(np.maximum(alpha * (2 - alpha) * noise**2 - alpha**2 * noise**2, 0))
        image = image + alpha * (values - image) + lacking * make_noise(random, SIZE)
        mask[drawn & inside] = 1
    return np.rint(image.clip(*RANGE)).astype(np.int16), mask


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


SIZE, SPACING_MM = 256, 1.4
CROP, CROP_MM = 44, 0.75


@cache
def place() -> Path:
    """A folder for all that the benchmarks write, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="composites-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def healthy_slices(count: int) -> SliceBank:
    """Two elliptic lungs, 90 mm wide and 150 mm high, a little elsewhere in every slice; noise of 20 HU."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    hu, lung = np.empty((count, SIZE, SIZE), np.int16), np.zeros((count, SIZE, SIZE), np.uint8)
    for number in range(count):
        shift = random.uniform(-0.02, 0.02)
        for side, middle in ((1, 0.29), (2, 0.71)):
            lung[number][((x - middle - shift) / 0.165) ** 2 + ((y - 0.5 - shift) / 0.28) ** 2 < 1] = side
        noise = random.normal(0, 20, (SIZE, SIZE))
        hu[number] = np.where(lung[number] > 0, -850, 40) + noise
    records = [SliceRecord(f"slice_{number}", "", SPACING_MM) for number in range(count)]
    return SliceBank(hu, lung, np.zeros_like(lung), records)


def nodules(count: int) -> NoduleBank:
    """Round nodules, 7 to 22 mm wide, solid and not, in crops of 33 mm."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:CROP, :CROP] - CROP // 2
    radii = random.uniform(3.5, 11, count) / CROP_MM
    alpha = np.clip(radii[:, None, None] - np.hypot(y, x) + 0.5, 0, 1)
    density = random.uniform(-600, 50, (count, 1, 1))
    hu = -850 + alpha * (density + 850) + random.normal(0, 20, alpha.shape)
    kinds = ("part_solid", "solid")
    records = [
        NoduleRecord(f"nodule_{number}", "", kinds[number % 2], 2 * radius * CROP_MM, CROP_MM)
        for number, radius in enumerate(radii)
    ]
    return NoduleBank(hu.astype(np.int16), np.rint(alpha * 255).astype(np.uint8), records)


@cache
def small_banks() -> Path:
    """100 nodules and 20 slices on disk."""
    folder = place() / "banks"
    nodules(100).save(folder / "nodules")
    healthy_slices(20).save(folder / "healthy_slices")
    return folder


def small_set(name: str, **more: Any) -> ComposeSettings:
    """A set of composites of them, in a folder of its own."""
    banks = small_banks()
    output = str(place() / name)
    return ComposeSettings(str(banks / "nodules"), str(banks / "healthy_slices"), output, groups=1000, **more)


NORMALS, NODULES, RULES = 500, 1200, PlanSettings(count=1_000_000)
COMBINATIONS, LOOPED = NORMALS * RULES.groups, 300
MOST_SECONDS, MOST_MEGABYTES = 60.0, 2000.0
PRESENCE = PresenceMap.from_points(())


@benchmark("select_composites")
def select_composites() -> Result:
    """Seconds for the whole plan, distance transforms included, on one core; the goal is a minute."""
    ours, _ = times()
    return Result("select_composites", MOST_SECONDS / ours, 1.0, ours, MOST_SECONDS, "s", REPEATS)


@benchmark("select_composites_loop")
def select_composites_loop() -> Result:
    """The same against a plain loop over combinations, which is timed on 300 of them and scaled up.

    The loop has one slice only, so that its distance transform and probabilities are at hand.
    """
    ours, loop = times()
    return Result("select_composites_loop", loop / ours, 20.0, ours, loop, "s", REPEATS)


@benchmark("select_composites_memory")
def select_composites_memory() -> Result:
    """Peak memory beyond the banks, MB."""
    ours = extra_megabytes(planning)
    return Result("select_composites_memory", MOST_MEGABYTES / ours, 1.0, ours, MOST_MEGABYTES, "MB", 1)


@cache
def times() -> tuple[float, float]:
    """Median seconds of our plan and of the loop, scaled to all combinations."""
    ours, loop = planning(), looping()
    loop()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(loop), REPEATS)
    return fast, slow * COMBINATIONS / LOOPED


def planning() -> Work:
    """The plan of the million."""
    bank, slices = nodules(NODULES), healthy_slices(NORMALS)

    def work() -> None:
        plan, stats = make_plan(bank, slices, PRESENCE, RULES)
        assert len(plan) == RULES.count and stats.combinations == COMBINATIONS

    return work


def looping() -> Work:
    """As one would write it: for every combination and nodule, draw a place until it fits."""
    slices, geometry = healthy_slices(1), measure_nodules(nodules(NODULES))
    groups = draw_groups(0, LOOPED, geometry.usable, RULES.most_nodules)
    lung = slices.lung[0]
    depth = distance_transform_edt(lung > 0).ravel() * SPACING_MM
    pixels = np.flatnonzero(lung)
    chances = PRESENCE.on_slice(lung).ravel()[pixels].astype(np.float64)
    chances /= chances.sum()
    width = lung.shape[1]

    def work() -> None:
        random, margins = np.random.default_rng(0), []
        for members in groups.members:
            placed: list[tuple[int, float]] = []
            for member in members[members >= 0]:
                radius = float(geometry.radii_mm[member])
                while True:
                    spot = int(random.choice(pixels, p=chances))
                    apart = all(
                        np.hypot(spot // width - p // width, spot % width - p % width) * SPACING_MM
                        >= r + radius
                        for p, r in placed
                    )
                    if depth[spot] >= radius and apart:
                        break
                placed.append((spot, radius))
            margins.append(min(depth[spot] - radius for spot, radius in placed))
        sorted(range(len(margins)), key=margins.__getitem__)[-len(margins) * 2 // 5 :]

    return work

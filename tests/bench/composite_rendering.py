"""Rendering composites of 256 x 256 to shards."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import multiprocessing
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, shift, zoom

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
from bundles.lung_two_stage.composition.render import RANGE
from bundles.lung_two_stage.composition.shards import ShardSet
from tests.bench.composite_banks import CROP_MM, SIZE, SPACING_MM, place, small_set
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

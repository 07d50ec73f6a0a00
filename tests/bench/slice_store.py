"""The slice store: how fast it serves, what memory that takes, what converting costs."""

from __future__ import annotations

import functools
import shutil
from functools import cache
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import DataLoader, Dataset, GridPatchDataset, PatchIterd, ShuffleBuffer
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
    SqueezeDimd,
)

from common.data.datasets import SliceDataset
from common.data.labels import LabelSet
from common.data.loaders import InfiniteBatchSampler, make_loader
from common.data.samples import Sample
from common.data.slice_cache import SliceCache, cached_pair
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds
from tests.bench.slice_volumes import GEOMETRY, MANY, VOLUMES, WINDOW, converted, folder, images, requests

BATCH, REPEATS = 16, 5
SERVED, SERVED_BY_MONAI = 8192, 256
MOST_MEGABYTES, MOST_GROWTH = 100.0, 20.0
MOST_OF_A_READ = 1.3


@benchmark("slice_store")
def slice_store() -> Result:
    """Random float32 slices of 256 x 256 a second through a loader in the main process, against MONAI's own.

    Ours serves image and label of every slice and counts the pair as one; MONAI serves the image alone, in
    the order of its shuffle buffer, without ``cache=True``, which keeps every slice in memory.
    """
    torch.set_num_threads(2)
    ours, baseline = serving(converted(), folder() / "made", VOLUMES), monai_serving()
    ours(), baseline()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    rate, monai_rate = SERVED / fast, SERVED_BY_MONAI / slow
    return Result("slice_store", rate / monai_rate, 80.0, rate, monai_rate, "slices/s", REPEATS)


@benchmark("slice_store_memory")
def slice_store_memory() -> Result:
    """Peak memory of opening 40 converted volumes and serving random slices of all, above the imports."""
    _, many = memory()
    return Result("slice_store_memory", MOST_MEGABYTES / many, 1.0, many, MOST_MEGABYTES, "MB", REPEATS)


@benchmark("slice_store_memory_growth")
def slice_store_memory_growth() -> Result:
    """What 40 volumes take beyond 4."""
    few, many = memory()
    growth = many - few
    name = "slice_store_memory_growth"
    return Result(name, MOST_GROWTH / max(growth, 0.1), 1.0, growth, MOST_GROWTH, "MB", REPEATS)


@benchmark("slice_store_conversion")
def slice_store_conversion() -> Result:
    """Converting images on all cores against one process that only reads them (goal: 1.3 times its time)."""
    convert, read = converting(), reading()
    convert(), read()
    fast, slow = alternate(lambda: seconds(convert), lambda: seconds(read), REPEATS)
    name = "slice_store_conversion"
    return Result(name, slow / fast, 1 / MOST_OF_A_READ, fast, slow, "s", REPEATS)


def serving(store: Path, place: Path, count: int) -> Work:
    """Opens the converted volumes and serves ``SERVED`` random slices of them, in batches."""
    asked, label_set = requests(place, count), LabelSet("all")

    def work() -> None:
        volumes = SliceCache(store, GEOMETRY).convert(asked)
        pairs = [
            cached_pair(Sample(image.source, label.source, image.source.name), image, label, label_set)
            for image, label in zip(volumes[:count], volumes[count:], strict=True)
        ]
        dataset = SliceDataset(pairs, label_set, min_pixels=0)
        loader = make_loader(dataset, InfiniteBatchSampler(len(dataset), BATCH))
        for batch in islice(loader, SERVED // BATCH):
            assert batch["image"].shape == (BATCH, 1, 256, 256)

    return work


def monai_serving() -> Work:
    """The same windowed and resized slices by MONAI: volumes read when their turn comes, a shuffle buffer."""
    read = Compose(
        [
            LoadImaged("image", reader="NibabelReader", image_only=True),
            EnsureChannelFirstd("image"),
            ScaleIntensityRanged("image", WINDOW.lower, WINDOW.upper, 0.0, 1.0, clip=True),
        ]
    )
    cut = Compose([SqueezeDimd("image", dim=-1), Resized("image", (256, 256), mode="area")])
    files = [{"image": path} for path in images(folder() / "made", range(SERVED_BY_MONAI // 128))]
    slices = PatchIterd("image", (None, None, 1), mode=None)
    patches = GridPatchDataset(Dataset(files, read), slices, cut, with_coordinates=False)

    def work() -> None:
        loader = DataLoader(ShuffleBuffer(patches, buffer_size=128, seed=0), batch_size=BATCH)
        assert sum(len(batch["image"]) for batch in loader) == SERVED_BY_MONAI

    return work


@cache
def memory() -> tuple[float, float]:
    """Median MB of serving 4 and 40 volumes, each time in a process of its own."""
    few = functools.partial(serving, converted(), folder() / "made", VOLUMES)
    many = functools.partial(serving, converted(), folder() / "many", MANY)
    return alternate(lambda: extra_megabytes(few), lambda: extra_megabytes(many), REPEATS)


def converting() -> Work:
    """Converts the images into a store that is empty each time."""
    store = folder() / "again"

    def work() -> None:
        shutil.rmtree(store, ignore_errors=True)
        SliceCache(store, GEOMETRY).convert(requests(folder() / "made")[:VOLUMES])

    return work


def reading() -> Work:
    """Reads the same files one after the other, as they are."""

    def work() -> None:
        for path in images(folder() / "made", range(VOLUMES)):
            np.asarray(nib.load(path).dataobj)

    return work

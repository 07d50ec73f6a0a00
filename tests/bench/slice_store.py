"""The slice store: how fast it serves, what memory that takes, what converting costs."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from torch.nn.functional import interpolate

from common.data.datasets import SliceDataset
from common.data.labels import LabelSet
from common.data.loaders import InfiniteBatchSampler, make_loader
from common.data.samples import Sample
from common.data.slice_cache import Job, SliceCache, cached_pair, read_record, stamps, usable_cores
from common.data.slice_geometry import Geometry, Intensity, Request
from common.files import write_json
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds

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


SHAPE, SPACING = (512, 512, 128), (0.7, 0.7, 1.0)
VOLUMES, MANY = 4, 40
NOISE = 15.0  # HU; the voxels then pack to about half as .nii.gz
GEOMETRY = Geometry(256)
WINDOW = Intensity("window", -200.0, 600.0)


@cache
def folder() -> Path:
    """A temporary folder with ``VOLUMES`` made pairs in ``made/``; removed when the process ends."""
    place = Path(tempfile.mkdtemp(prefix="slice-store-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "made").mkdir()
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32) * NOISE
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda number: make(place / "made", number, noise), range(VOLUMES)))
    return place


def make(place: Path, number: int, noise: np.ndarray) -> None:
    """int16 HU with smooth structures, air outside and a scanner's noise."""
    smooth = structures(number)
    air = smooth < -1.0
    image = np.where(air, -1000, 60 + 250 * smooth) + np.roll(noise, 37 * number, axis=0)
    label = np.digitize(smooth, [0.4, 0.9, 1.4]).astype(np.uint8)
    affine = np.diag([*SPACING, 1.0])
    nib.save(nib.Nifti1Image(np.rint(image).astype(np.int16), affine), place / f"image{number}.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), place / f"label{number}.nii.gz")


def structures(number: int) -> np.ndarray:
    """float32 of `SHAPE`, smooth, of mean 0 and deviation 1."""
    coarse = np.random.default_rng(number + 1).standard_normal((1, 1, 10, 10, 6), np.float32)
    smooth = interpolate(torch.from_numpy(coarse), SHAPE, mode="trilinear")[0, 0].numpy()
    return np.asarray((smooth - smooth.mean()) / smooth.std())


def requests(place: Path, count: int = VOLUMES) -> list[Request]:
    """The images in ``place``, then their labels."""
    images = [Request(place / f"image{number}.nii.gz", "image", WINDOW) for number in range(count)]
    return images + [Request(place / f"label{number}.nii.gz", "label") for number in range(count)]


@cache
def converted() -> Path:
    """The store's folder: the made files converted, and ``MANY`` links to them as if they were, too."""
    made, store = folder() / "made", folder() / "store"
    SliceCache(store, GEOMETRY).convert(requests(made))
    linked = linked_sources()
    for kind in ("image", "label"):
        of_kind = [[r for r in requests(*p) if r.kind == kind] for p in ((made,), (linked, MANY))]
        for number, request in enumerate(of_kind[1]):
            copy_artefact(store, Job(of_kind[0][number % VOLUMES], GEOMETRY), Job(request, GEOMETRY))
    return store


def linked_sources() -> Path:
    """``MANY`` pairs in ``many/``: hard links to the made ones in turn."""
    many = folder() / "many"
    many.mkdir()
    for number in range(MANY):
        for kind in ("image", "label"):
            name = f"{kind}{number % VOLUMES}.nii.gz"
            os.link(folder() / "made" / name, many / f"{kind}{number}.nii.gz")
    return many


def copy_artefact(store: Path, job: Job, other: Job) -> None:
    """What the store would hold of ``other``, a file of the same content as that of ``job``."""
    record = read_record(store / f"{job.name}.json")
    assert record is not None, f"{job.source} is not converted"
    array = record["array"].replace(job.name, other.name)
    os.link(store / record["array"], store / array)
    settings = {"settings": other.settings, "array": array, "parts": stamps(other.source)}
    write_json(store / f"{other.name}.json", {**record, **settings})


def images(place: Path, numbers: Sequence[int]) -> list[str]:
    """Paths of image files."""
    return [str(place / f"image{number}.nii.gz") for number in numbers]

"""Made CT-like volumes of full size for the benchmarks of the slice store."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.nn.functional import interpolate

from common.data.slice_cache import Job, SliceCache, read_record, stamps, usable_cores
from common.data.slice_geometry import Geometry, Intensity, Request
from common.files import write_json

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

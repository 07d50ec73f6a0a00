"""Made results of the stages before: banks, and finished shards of composites."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.composition.shards import DESCRIPTION, FileFormat, Member, ShardSet
from common.files import write_json

SIZE = 32
CATEGORIES = ["solid", "part_solid"]


def made_slice(random: np.random.Generator, nodules: int, sharp: bool = False) -> tuple[np.ndarray, ...]:
    """A body with two lungs and round nodules in them: HU int16, lung and nodules uint8 (SIZE, SIZE).

    A ``sharp`` slice is what a bad composite is: too bright a lung, and nodules without any noise.
    """
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[(x - 15.5) ** 2 / 15**2 + (y - 15.5) ** 2 / 13**2 < 1] = 40
    lung, mask = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    for side, centre in enumerate((9.0, 22.0), 1):
        inside = (x - centre) ** 2 / 5.5**2 + (y - 15.5) ** 2 / random.uniform(8, 10) ** 2 < 1
        hu[inside], lung[inside] = -850, side
    noisy = hu + random.normal(0, 40, hu.shape) + 150 * (lung > 0) * sharp
    for number in range(nodules):
        centre = (9.0, 22.0)[number % 2] + random.uniform(-2, 2), random.uniform(11, 20)
        disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < random.uniform(1.6, 2.6) ** 2
        category = int(random.integers(2))
        level = (20.0, -350.0)[category]
        noisy[disc] = level if sharp else level + random.normal(0, 40, int(disc.sum()))
        mask[disc] = category + 1
    return noisy.round().astype(np.int16), lung, mask


def slice_bank(patients: Sequence[str], each: int, nodules: Sequence[int], seed: int = 0) -> SliceBank:
    """``each`` slices of every patient; the k-th has ``nodules[k % len(nodules)]`` nodules."""
    random = np.random.default_rng([seed, len(patients)])
    names = [(patient, number) for patient in patients for number in range(each)]
    planes = [made_slice(random, nodules[number % len(nodules)]) for _, number in names]
    records = [SliceRecord(f"{patient}_{number}", patient, 5.0) for patient, number in names]
    return SliceBank(*(np.stack(arrays) for arrays in zip(*planes, strict=True)), records)


def nodule_bank(patients: Sequence[str]) -> NoduleBank:
    """One nodule of each patient, the categories in turn."""
    hu = np.full((len(patients), 8, 8), -800, np.int16)
    alpha = np.zeros((len(patients), 8, 8), np.uint8)
    hu[:, 2:6, 2:6], alpha[:, 2:6, 2:6] = 10, 255
    records = [NoduleRecord(p, p, CATEGORIES[k % 2], 20.0, 5.0) for k, p in enumerate(patients)]
    return NoduleBank(hu, alpha, records)


def write_composites(folder: Path, count: int = 20, per_shard: int = 6, **description: Any) -> Path:
    """Finished shards of made composites."""
    shards, form = ShardSet(folder, count, per_shard), FileFormat()
    for shard in range(len(shards)):
        members = []
        for number in shards.numbers(shard):
            hu, _, mask = made_slice(np.random.default_rng([7, number]), 2, sharp=True)
            record = json.dumps({"number": number, "spacing_mm": 5.0, "normal": {"name": f"a_{number % 3}"}})
            files = {"image.npy": form.encode_image(hu, 5.0), "mask.npy": form.encode_mask(mask, 5.0)}
            members.append(Member(number, {**files, "json": record.encode()}))
        shards.write(shard, members)
    facts = {"categories": CATEGORIES, "image_size": [SIZE, SIZE], "format": "npy", "window_hu": None}
    write_json(folder / DESCRIPTION, {**facts, **description})
    assert shards.finish()
    return folder


def made_work(folder: Path) -> Path:
    """A ``work`` folder as the stages before the enhancer leave it."""
    extraction = folder / "extraction"
    nodule_bank(["a", "b", "c", "d"]).save(extraction / "nodules")
    slice_bank(["a", "b", "c"], 4, [0]).save(extraction / "healthy_slices")
    slice_bank(["m", "n", "o", "p"], 4, [1, 0]).save(extraction / "others")
    slice_bank(["t", "u", "v", "w"], 4, [1, 0], seed=1).save(extraction / "tests")
    write_json(extraction / "extraction.json", {"categories": CATEGORIES})
    write_composites(folder / "composites")
    return folder

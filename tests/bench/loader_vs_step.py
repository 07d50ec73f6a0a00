"""The loader alone against the training step it has to feed, in images a second."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from common.data.layouts import find_samples
from common.data.loaders import InfiniteBatchSampler, make_loader
from common.data.phantoms.writing import PhantomSettings, write_phantoms
from tests.bench.harness import Result, Work, alternate, benchmark, seconds
from tests.bench.pix2pix_step import BATCH, REPEATS, SIZE, trainer_step
from tests.common.data.made_sets import pair_dataset

BATCHES = 50


@benchmark("loader_vs_step")
def loader_vs_step() -> Result:
    """Batches of 4 at 256 x 256 in the main process, as ``num_workers: 0`` serves them, against the step."""
    torch.set_num_threads(2)
    load, step = loading(), trainer_step(amp=True)
    load(), step()
    load_time, step_time = alternate(lambda: seconds(load), lambda: seconds(step), REPEATS)
    served, needed = BATCHES * BATCH / load_time, BATCH / step_time
    return Result("loader_vs_step", served / needed, 5.0, served, needed, "images/s", REPEATS)


def loading() -> Work:
    """Draws batches of phantom pairs."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "phantoms", PhantomSettings(patients=4, shape=(128, 128, 12)))
        dataset = pair_dataset(find_samples(Path(folder) / "phantoms"), SIZE)
    loader: DataLoader = make_loader(dataset, InfiniteBatchSampler(len(dataset), BATCH))

    def work() -> None:
        for _ in islice(loader, BATCHES):
            pass

    return work

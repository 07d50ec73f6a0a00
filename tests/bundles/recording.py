"""Parts of runs in two processes: handlers that record or kill; batches whose sharing changes nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from common.rng import make_rng
from common.training.distributed import rank
from common.training.precision import Precision
from common.training.trainer import prepare_batch


class VisitedSamples:
    """Appends one line ``[epoch, sample, ...]`` an iteration to ``FOLDER/rank_N.jsonl``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._record)

    def _record(self, engine: Engine) -> None:
        state: Any = engine.state
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank_{rank()}.jsonl").open("a") as file:
            file.write(json.dumps([state.epoch, *state.batch["sample"].tolist()]) + "\n")


class KilledOnce:
    """Kills process 1 at one iteration, the first time that it gets there."""

    def __init__(self, iteration: int, mark: str) -> None:
        self.iteration, self.mark = iteration, Path(mark)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self._kill)

    def _kill(self, engine: Engine) -> None:
        if rank() == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class FrozenNorm(nn.BatchNorm2d):
    """A BatchNorm that keeps to its running statistics: those of a batch are each process's own."""

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


def frozen(network: nn.Module) -> nn.Module:
    """The network with every BatchNorm frozen."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenNorm
    return network


class LatentOfSample:
    """A ``prepare_batch`` whose noise belongs to the sample, not to the process that visits it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, batch: Any, precision: Precision) -> dict[str, Any]:
        drawn = [
            make_rng(0, "latent", sample).standard_normal(self.size) for sample in batch["sample"].tolist()
        ]
        latent = torch.tensor(drawn, dtype=torch.float32, device=precision.device)
        return {**prepare_batch(batch, precision), "latent": latent}

"""A tiny training engine for handlers: it logs what a function of the iteration says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ignite.engine import Engine
from torch import nn

LENGTH = 4  # iterations per epoch
Logs = Callable[[int], dict[str, float]]


class FakeTrainer(Engine):
    """Runs like a trainer whose losses are ``logs(iteration)``; ``start`` is where a resumed run begins."""

    def __init__(self, logs: Logs, handlers: list[object], start: int = 0) -> None:
        super().__init__(self._step)
        self.logs, self.start = logs, start
        self.networks: dict[str, nn.Module] = {"G": nn.BatchNorm2d(1)}  # made without random numbers
        self.pred = torch.linspace(-1, 1, 2 * 8 * 8).reshape(2, 1, 8, 8)  # (B, 1, H, W)
        for handler in handlers:
            handler.attach(self)

    def _step(self, engine: Engine, batch: object) -> dict[str, torch.Tensor]:
        self.state.logs = self.logs(self.state.iteration)
        return {"pred": self.pred}

    def train(self, iterations: int) -> FakeTrainer:
        """Trains up to ``iterations`` in all (a multiple of LENGTH)."""
        if self.start:
            self.load_state_dict(
                {"iteration": self.start, "epoch_length": LENGTH, "max_epochs": iterations // LENGTH}
            )
            self.run(range(LENGTH))
        else:
            self.run(range(LENGTH), max_epochs=iterations // LENGTH)
        return self


def losses(iteration: int) -> dict[str, float]:
    """Losses that differ in every iteration and do not fit into float32."""
    return {"loss": 1 / iteration, "D_loss": 0.1 * iteration}


@pytest.fixture
def trainer() -> type[FakeTrainer]:
    return FakeTrainer


@pytest.fixture
def plain_losses() -> Logs:
    return losses

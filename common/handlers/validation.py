"""Validation during training that leaves no trace in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from common.handlers.best import BestModel
from common.handlers.readings import epoch_due, networks
from common.handlers.scalars import ScalarLog
from common.training.modes import evaluating, preserved_rng

PREFIX = "val/"
SEED = 0


class Validation:
    """Runs ``evaluator`` every ``interval`` epochs and at the end; logs ``val/<metric>``, keeps the best.

    MONAI's ``ValidationHandler`` works at EPOCH_COMPLETED, after the resume file of that iteration, lets
    the evaluator consume the run's random numbers, and publishes nothing.

    Args:
        evaluator: its scalar metrics are published.
        log: the run's log.
        best: keeps the best model, if wanted.
        interval: epochs between two validations; 0 for the end only.
        at_end: validate the last iteration too, where it is not the end of an interval.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        log: ScalarLog,
        best: BestModel | None = None,
        interval: int = 1,
        at_end: bool = True,
    ) -> None:
        self.evaluator, self.log, self.best = evaluator, log, best
        self.interval, self.at_end = interval, at_end
        self.last_iteration = 0

    def attach(self, engine: Engine) -> None:
        """Attach after the log and before the resume file's saver."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._run_when_due)
        if self.at_end:
            engine.add_event_handler(Events.COMPLETED, self._run_at_end)

    def run(self, engine: Engine) -> dict[str, float]:
        """Validates now and returns the metrics; random states and the networks' modes stay."""
        with preserved_rng(SEED), evaluating(*networks(engine).values()):
            self.evaluator.run(engine.state.epoch)
        metrics = scalar_metrics(self.evaluator.state.metrics)
        self.last_iteration = engine.state.iteration
        self.log.add_scalars({PREFIX + name: value for name, value in metrics.items()}, self.last_iteration)
        self.log.flush()
        if self.best is not None:
            self.best.update(engine, metrics)
        return metrics

    def _run_when_due(self, engine: Engine) -> None:
        if epoch_due(engine, self.interval):
            self.run(engine)

    def _run_at_end(self, engine: Engine) -> None:
        if engine.state.iteration != self.last_iteration:
            self.run(engine)

    def state_dict(self) -> dict[str, Any]:
        """The iteration of the last validation."""
        return {"last_iteration": self.last_iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``."""
        self.last_iteration = int(state["last_iteration"])


def scalar_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers (Python's, numpy's or tensors of one element), as floats."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float, np.number))}
    tensors = {name: value for name, value in metrics.items() if isinstance(value, torch.Tensor)}
    singles = numbers | {name: value for name, value in tensors.items() if value.numel() == 1}
    return {name: float(singles[name]) for name in metrics if name in singles}

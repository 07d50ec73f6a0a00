"""What all reports of an evaluation share: predictions are collected; at the end files are left behind."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from common.files import write_json
from common.metrics.curves import convergence_plot


class CollectedReport(ABC):
    """Collects an evaluator's predictions; when its pass is complete, writes ``metrics.json``.

    Args:
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        losses: the training log (CSV); its plots are left out where there is none.
        facts: put into ``metrics.json`` as they are (model, data, seed).

    Attributes:
        result: the content of ``metrics.json``; empty before the end of the pass.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        losses: str | os.PathLike[str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.facts = Path(folder), dict(facts or {})
        self.losses = Path(losses) if losses else None
        self.result: dict[str, Any] = {}
        self._predictions: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Takes every iteration's predictions, reports when the pass is complete."""
        engine.add_event_handler(Events.STARTED, self._predictions.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._report)

    @abstractmethod
    def evaluate(self, predictions: Tensor) -> dict[str, Any]:
        """Measures all predictions (N, 1, S, S) in [-1, 1], writes pictures, prints tables.

        Returns:
            What ``metrics.json`` holds behind the facts.
        """

    def plot(self, losses: Path) -> None:
        """Draws the training log."""
        convergence_plot(losses, self.folder / "convergence.png")

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        # Whatever a generator puts out beside its image follows after it.
        self._predictions += [torch.as_tensor(item["pred"])[:1].float().cpu() for item in state.output]

    def _report(self) -> None:
        self.result = {**self.facts, **self.evaluate(torch.stack(self._predictions))}
        write_json(self.folder / "metrics.json", self.result)
        if self.losses is not None and self.losses.is_file():
            self.plot(self.losses)
        print(f"\nwritten to {self.folder}")

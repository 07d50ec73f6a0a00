"""Stops a run that has gone wrong before it overwrites a good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from common.errors import TrainingDiverged
from common.handlers.readings import contrasts, logs, prediction
from common.training.distributed import any_rank

PICTURES = 4
"""Dimensions of a batch of them; of other outputs (scores, boxes) the losses alone are looked at."""
ADVICE = "lower the learning rate or switch --amp off"


class DivergenceGuard:
    """Raises when a logged value or an image is NaN or infinite, or the generator's output constant.

    Constant (for example all black) means: the standard deviation over the pixels of every image of the
    batch is below ``minimum_contrast`` for ``patience`` iterations in a row. Images range over [-1, 1], so
    the default of 0.002 is a thousandth of the range. Of a generator that puts out more than an image the
    first channel is looked at.

    Args:
        patience: constant iterations in a row that are borne (a fresh generator may start flat); None for any
            number, where `common.handlers.black.BlackOutput` judges them.
        minimum_contrast: smallest standard deviation of an image that shows something.
        checkpoint: the resume file, named in the message.
    """

    def __init__(
        self, patience: int | None = 50, minimum_contrast: float = 0.002, checkpoint: str | Path | None = None
    ) -> None:
        self.patience, self.minimum_contrast = patience, minimum_contrast
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.flat_iterations = 0

    def attach(self, engine: Engine) -> None:
        """Attach first: nothing of a bad iteration is to be written."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        reason = self._not_finite(engine) or self._constant(engine)
        if any_rank(reason != ""):
            reason = reason or "another process diverged"
            raise TrainingDiverged(f"iteration {engine.state.iteration}: {reason}; {self._kept()}; {ADVICE}")

    def _not_finite(self, engine: Engine) -> str:
        bad = [
            f"{name} is {float(value)}" for name, value in logs(engine).items() if not math.isfinite(value)
        ]
        return ", ".join(bad)

    def _constant(self, engine: Engine) -> str:
        if prediction(engine).ndim < PICTURES:
            return ""
        contrast = float(torch.max(contrasts(engine)))  # NaN where any image has one
        if not math.isfinite(contrast):
            return "the generated images hold NaN or infinite values"
        self.flat_iterations = self.flat_iterations + 1 if contrast < self.minimum_contrast else 0
        if self.patience is None or self.flat_iterations < self.patience:
            return ""
        level = float(prediction(engine)[:, :1].float().mean())
        return f"constant images ({level:.2f} of -1..1) for {self.flat_iterations} iterations"

    def _kept(self) -> str:
        if self.checkpoint is not None and self.checkpoint.is_file():
            return f"the last good checkpoint is {self.checkpoint}"
        return "no checkpoint had been written yet"

    def state_dict(self) -> dict[str, Any]:
        """The number of constant iterations so far."""
        return {"flat_iterations": self.flat_iterations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from ``state_dict``."""
        self.flat_iterations = int(state["flat_iterations"])

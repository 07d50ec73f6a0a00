"""Convergence as paper A puts it: the losses of generator and discriminator have stabilised."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from common.handlers.readings import logged, logs
from common.handlers.stopping import stop_after_iteration
from common.training.distributed import any_rank

LOG_NAME = "convergence"
SMALLEST = 1e-8  # medians of exactly 0 do not divide

logger = logging.getLogger(__name__)


class Convergence:
    """Measures how much the losses still move, says when they have settled and can stop the run.

    Iterations are cut into consecutive windows. The measure of a window is the relative change of the
    median of each loss against the window before, ``|m - m'| / |m'|``, the largest over all losses. Medians
    do not mind the spikes of adversarial losses, and a loss that oscillates about a fixed value is stable.
    The run has converged when the measure stays below ``tolerance`` for ``patience`` windows in a row.

    The measure appears as ``convergence`` in ``engine.state.logs`` at the end of each window but the first.

    Args:
        names: losses in ``engine.state.logs``, e.g. ``("G_loss", "D_loss")``.
        window: iterations per window.
        tolerance: largest relative change that counts as stable, e.g. 0.02.
        patience: stable windows in a row that mean convergence.
        stop: end the run (cleanly, after this iteration) when it has converged.
    """

    def __init__(
        self,
        names: Sequence[str] = ("G_loss", "D_loss"),
        window: int = 500,
        tolerance: float = 0.02,
        patience: int = 3,
        stop: bool = False,
    ) -> None:
        self.names, self.window = list(names), window
        self.tolerance, self.patience, self.stop = tolerance, patience, stop
        self.values: list[list[float]] = []  # of the present window: iterations x names
        self.medians: list[float] = []  # of the window before, by name; empty in the first window
        self.stable_windows = 0
        self.converged_at = 0  # iteration; 0 while it has not

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.scalars.ScalarLog`, which writes the measure."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _start(self, engine: Engine) -> None:
        if self.stop and self.converged_at:
            logger.info("the losses had converged at iteration %d; nothing left to train", self.converged_at)
            engine.terminate()

    def _update(self, engine: Engine) -> None:
        self.values.append([logged(engine, name) for name in self.names])
        if len(self.values) < self.window:
            return
        medians = torch.tensor(self.values, dtype=torch.float64).quantile(0.5, dim=0).tolist()  # (names,)
        if self.medians:
            self._judge(engine, relative_change(self.medians, medians))
        self.values, self.medians = [], medians

    def _judge(self, engine: Engine, change: float) -> None:
        logs(engine)[LOG_NAME] = change
        self.stable_windows = self.stable_windows + 1 if change < self.tolerance else 0
        if not self.converged_at and any_rank(self.stable_windows >= self.patience):
            self.converged_at = engine.state.iteration
            self._announce(engine)

    def _announce(self, engine: Engine) -> None:
        logger.info(
            "converged at iteration %d: %s moved by less than %.2g in each of %d windows of %d iterations%s",
            self.converged_at,
            " and ".join(self.names),
            self.tolerance,
            self.patience,
            self.window,
            "; the run stops here" if self.stop else "",
        )
        if self.stop:
            stop_after_iteration(engine)

    def state_dict(self) -> dict[str, Any]:
        """The values of the present window (n, names), the medians before it, and the counters."""
        return {
            "values": torch.tensor(self.values, dtype=torch.float64),
            "medians": torch.tensor(self.medians, dtype=torch.float64),
            "stable_windows": self.stable_windows,
            "converged_at": self.converged_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``, to the bit."""
        self.values = state["values"].tolist()
        self.medians = state["medians"].tolist()
        self.stable_windows = int(state["stable_windows"])
        self.converged_at = int(state["converged_at"])


def relative_change(before: Sequence[float], after: Sequence[float]) -> float:
    """The largest ``|after - before| / |before|`` over all pairs."""
    return max(abs(b - a) / max(abs(a), SMALLEST) for a, b in zip(before, after, strict=True))

"""A discriminator that has nothing left to learn, or gradients too small to teach anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from common.handlers.alarm import Alarm
from common.handlers.readings import logged, logs, network

SUFFIX, COUNTER = "_gradient_norm", "vanishing_iterations"


class Vanishing:
    """Watches the discriminator's loss and the length of the networks' gradients.

    After every iteration ``D_gradient_norm`` and ``G_gradient_norm`` (the Euclidean length of all gradients
    of the network's last update) appear in ``engine.state.logs``, and ``vanishing_iterations``: for how many
    iterations in a row a measure has been below its bound, the longest of all measures. An iteration whose
    gradients overflowed (half precision) has no length and counts as not vanishing.

    Args:
        loss: entry of ``engine.state.logs``.
        loss_below: bound of the loss; None for losses that have no lowest value, as a critic's.
        gradient_below: bound of the gradients' lengths; None to log them only.
        names: networks whose gradients are measured.
        patience: iterations in a row that are worth a warning.
        stop: end the run with the warning.
    """

    def __init__(
        self,
        loss: str = "D_loss",
        loss_below: float | None = 0.01,
        gradient_below: float | None = 1e-2,
        names: Sequence[str] = ("D", "G"),
        patience: int = 200,
        stop: bool = False,
    ) -> None:
        self.loss, self.names, self.patience = loss, list(names), patience
        bounds = {loss: loss_below} | {name + SUFFIX: gradient_below for name in names}
        self.bounds = {name: bound for name, bound in bounds.items() if bound is not None}
        self.iterations = dict.fromkeys(self.bounds, 0)  # below the bound, in a row
        self.alarms = {name: Alarm(f"vanishing {name}", stop) for name in self.bounds}

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.scalars.ScalarLog`, which writes the measures."""
        for alarm in self.alarms.values():
            alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        measures = {name + SUFFIX: gradient_norm(network(engine, name).parameters()) for name in self.names}
        logs(engine).update({name: value for name, value in measures.items() if math.isfinite(value)})
        measures[self.loss] = logged(engine, self.loss)
        for name in self.bounds:
            self._judge(engine, name, measures[name])
        logs(engine)[COUNTER] = float(max(self.iterations.values(), default=0))

    def _judge(self, engine: Engine, name: str, value: float) -> None:
        bound = self.bounds[name]
        count = self.iterations[name] = self.iterations[name] + 1 if value < bound else 0
        reason = f"{value:.2g} is below {bound:g}, for {count} iterations in a row"
        self.alarms[name].update(engine, count >= self.patience, reason)

    def state_dict(self) -> dict[str, Any]:
        """The counters and alarms by measure."""
        alarms = {name: alarm.state_dict() for name, alarm in self.alarms.items()}
        return {"iterations": dict(self.iterations), "alarms": alarms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from ``state_dict``; measures that were not watched begin at 0."""
        for name in self.bounds.keys() & state["iterations"].keys():
            self.iterations[name] = int(state["iterations"][name])
            self.alarms[name].load_state_dict(state["alarms"][name])


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean length of all gradients together; parameters without one (frozen) count as 0."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0

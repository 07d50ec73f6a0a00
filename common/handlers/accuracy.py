"""Moving averages of the discriminator's accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events

from common.handlers.readings import logged, logs

ACCURACIES = ("D_accuracy_real", "D_accuracy_fake", "D_accuracy_pairs")


class AccuracyAverage:
    """Adds ``<name>_ema`` to ``engine.state.logs`` for every name: batch accuracies are too noisy to read.

    average <- smoothing * average + (1 - smoothing) * value, starting with the first value.

    Args:
        names: entries of ``engine.state.logs``; None for those of `ACCURACIES` that are logged: of a critic
            none is.
        smoothing: weight of the past, in [0, 1); 0.98 averages over about 50 iterations.
    """

    def __init__(self, names: Sequence[str] | None = None, smoothing: float = 0.98) -> None:
        self.names = None if names is None else list(names)
        self.smoothing = smoothing
        self.averages: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.scalars.ScalarLog`, which writes the averages."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        known = [name for name in ACCURACIES if name in logs(engine)]
        for name in known if self.names is None else self.names:
            value = logged(engine, name)
            past = self.averages.get(name, value)
            self.averages[name] = self.smoothing * past + (1 - self.smoothing) * value
            logs(engine)[f"{name}_ema"] = self.averages[name]

    def state_dict(self) -> dict[str, Any]:
        """The averages by name."""
        return {"averages": dict(self.averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``'s averages."""
        self.averages = dict(state["averages"])

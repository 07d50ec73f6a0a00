from __future__ import annotations

from typing import Any

import pytest
from ignite.engine import Engine, Events

from common.handlers.stopping import stop_after_iteration


class Stop:
    """Stops a run at one iteration and notes which epochs were completed."""

    def __init__(self, iteration: int) -> None:
        self.iteration, self.epochs, self.ends = iteration, list[int](), 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), stop_after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.epochs.append(engine.state.epoch))
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize(("iteration", "epochs"), [(3, []), (4, [1]), (6, [1]), (8, [1, 2])])
def test_the_epoch_of_a_last_iteration_is_completed(
    trainer: Any, plain_losses: Any, iteration: int, epochs: list[int]
) -> None:
    stop = Stop(iteration)
    engine = trainer(plain_losses, [stop]).train(16)
    assert (engine.state.iteration, stop.epochs) == (iteration, epochs)
    assert stop.ends == 1  # with it the last validation comes, and the first model of a short run

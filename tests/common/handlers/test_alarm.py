from __future__ import annotations

import logging
from typing import Any

import pytest
from ignite.engine import Engine, Events

from common.handlers.alarm import Alarm


class Wrong:
    """Feeds an alarm: it goes wrong at the iterations given."""

    def __init__(self, alarm: Alarm, iterations: set[int]) -> None:
        self.alarm, self.iterations = alarm, iterations

    def attach(self, engine: Engine) -> None:
        self.alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def _look(self, engine: Engine) -> None:
        step = engine.state.iteration
        self.alarm.update(engine, step in self.iterations, f"{step} of 9")


def test_one_line_each_time_it_begins(
    trainer: Any, plain_losses: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alarm = Alarm("rust")
    engine = trainer(plain_losses, [Wrong(alarm, {2, 3, 4, 6, 7})]).train(8)
    assert caplog.messages == ["rust at iteration 2, epoch 1: 2 of 9", "rust at iteration 6, epoch 2: 6 of 9"]
    assert (alarm.events, alarm.on, engine.state.iteration) == (2, False, 8)


@pytest.mark.parametrize("last", [3, 4])  # within an epoch and at its end
def test_stop_ends_the_run_and_keeps_it_from_going_on(
    trainer: Any, plain_losses: Any, caplog: pytest.LogCaptureFixture, last: int
) -> None:
    alarm = Alarm("rust", stop=True)
    assert trainer(plain_losses, [Wrong(alarm, {last})]).train(12).state.iteration == last
    assert caplog.messages == [f"rust at iteration {last}, epoch 1: {last} of 9; the run stops here"]
    again = Alarm("rust", stop=True)
    again.load_state_dict(alarm.state_dict())
    assert trainer(plain_losses, [Wrong(again, set())], start=last).train(12).state.iteration == last
    assert caplog.messages[1] == "rust had ended this run; it goes on without that setting"


def test_a_resumed_run_is_not_warned_twice(
    trainer: Any, plain_losses: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Alarm("rust"), Alarm("rust")
    trainer(plain_losses, [Wrong(first, {3, 4, 5, 6})]).train(4)
    second.load_state_dict(first.state_dict())
    caplog.set_level(logging.WARNING)
    trainer(plain_losses, [Wrong(second, {3, 4, 5, 6})], start=4).train(8)
    assert len(caplog.messages) == 1 and (second.events, second.on) == (1, False)

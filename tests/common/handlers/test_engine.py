from __future__ import annotations

from typing import Any

import pytest
from ignite.engine import Engine, Events

from common.handlers import engine as handler_engine
from common.handlers.engine import TimeLimit, on_exception, stop_after_iteration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A clock under the test's control, in seconds."""
    times = {"cpu": 1000.0}
    monkeypatch.setattr(handler_engine.time, "process_time", lambda: times["cpu"])
    return times


def ticking(clock: dict[str, float]) -> Any:
    """Each iteration takes 10 s of CPU."""

    def logs(iteration: int) -> dict[str, float]:
        clock["cpu"] += 10
        return {"loss": 1.0}

    return logs


@pytest.mark.parametrize(("minutes", "last"), [(1, 6), (None, 12), (9, 12)])
def test_the_run_ends_when_the_budget_is_spent(trainer: Any, clock: Any, minutes: Any, last: int) -> None:
    assert trainer(ticking(clock), [TimeLimit(minutes)]).train(12).state.iteration == last


def test_time_of_earlier_parts_counts_and_time_between_does_not(trainer: Any, clock: Any) -> None:
    first, second = TimeLimit(cpu_minutes=1), TimeLimit(cpu_minutes=1)
    trainer(ticking(clock), [first]).train(4)
    clock["cpu"] += 500
    assert first.state_dict() == {"cpu_seconds": 40.0}
    second.load_state_dict(first.state_dict())
    assert trainer(ticking(clock), [second], start=4).train(12).state.iteration == 6


def test_a_spent_budget_trains_nothing(trainer: Any, clock: Any) -> None:
    spent = TimeLimit(cpu_minutes=1)
    spent.load_state_dict({"cpu_seconds": 60.0, "wall_seconds": 0.0})
    assert trainer(ticking(clock), [spent], start=4).train(12).state.iteration == 4


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


def test_all_callbacks_run_and_the_error_is_raised_on() -> None:
    def fail(engine: Engine, batch: int) -> None:
        raise ArithmeticError("three")

    calls: list[str] = []
    engine = Engine(fail)
    on_exception(engine, lambda: calls.append("first"))
    on_exception(engine, lambda: calls.append("second"))
    with pytest.raises(ArithmeticError, match="three"):
        engine.run([1])
    assert calls[:2] == ["first", "second"]


def test_a_failing_callback_does_not_keep_the_others_from_running() -> None:
    def fail(engine: Engine, batch: int) -> None:
        raise ArithmeticError("three")

    def full() -> None:
        raise OSError("disk full")

    calls: list[str] = []
    engine = Engine(fail)
    on_exception(engine, full)
    on_exception(engine, lambda: calls.append("second"))
    with pytest.raises(OSError, match="disk full"):
        engine.run([1])
    assert calls[:1] == ["second"]

from __future__ import annotations

from typing import Any

import pytest

from common.handlers import budget
from common.handlers.budget import TimeBudget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Clocks under the test's control, in seconds."""
    times = {"cpu": 1000.0, "wall": 5000.0}
    monkeypatch.setattr(budget.time, "process_time", lambda: times["cpu"])
    monkeypatch.setattr(budget.time, "monotonic", lambda: times["wall"])
    return times


def ticking(clock: dict[str, float]) -> Any:
    """Each iteration takes 10 s of CPU and 6 s on the clock."""

    def logs(iteration: int) -> dict[str, float]:
        clock["cpu"] += 10
        clock["wall"] += 6
        return {"loss": 1.0}

    return logs


@pytest.mark.parametrize(
    ("limits", "last"),
    [({"cpu_minutes": 1}, 6), ({"wall_minutes": 1}, 10), ({}, 12), ({"cpu_minutes": 9}, 12)],
)
def test_the_run_ends_when_the_budget_is_spent(trainer: Any, clock: Any, limits: Any, last: int) -> None:
    assert trainer(ticking(clock), [TimeBudget(**limits)]).train(12).state.iteration == last


def test_time_of_earlier_parts_counts_and_time_between_does_not(trainer: Any, clock: Any) -> None:
    first, second = TimeBudget(cpu_minutes=1), TimeBudget(cpu_minutes=1)
    trainer(ticking(clock), [first]).train(4)
    clock["cpu"] += 500
    assert first.state_dict() == {"cpu_seconds": 40.0, "wall_seconds": 24.0}
    second.load_state_dict(first.state_dict())
    assert trainer(ticking(clock), [second], start=4).train(12).state.iteration == 6


def test_a_spent_budget_trains_nothing(trainer: Any, clock: Any) -> None:
    spent = TimeBudget(wall_minutes=1)
    spent.load_state_dict({"cpu_seconds": 0.0, "wall_seconds": 60.0})
    assert trainer(ticking(clock), [spent], start=4).train(12).state.iteration == 4

from __future__ import annotations

import pytest
import torch

from common.training.lr_scheduler import apply_schedule, linear_decay


def rates(epochs: int, start: float, resume_at: int | None = None) -> list[float]:
    """The learning rate in each epoch, through a saved state if wanted."""
    found = []
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    schedule = linear_decay(optimizer, epochs, start)
    for epoch in range(epochs):
        if epoch == resume_at:
            states = optimizer.state_dict(), schedule.state_dict()
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
            schedule = linear_decay(optimizer, epochs, start)
            optimizer.load_state_dict(states[0]), schedule.load_state_dict(states[1])
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step(), schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_falls_over_the_second_half_to_nothing() -> None:
    assert rates(8, 0.5) == pytest.approx([0.2] * 5 + [0.15, 0.1, 0.05, 0.0])


def test_a_start_of_1_keeps_the_rate_and_0_falls_from_the_first() -> None:
    assert rates(3, 1.0)[:3] == [0.2] * 3
    assert rates(4, 0.0) == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])


def test_a_resumed_schedule_goes_on() -> None:
    assert rates(8, 0.5, resume_at=6) == rates(8, 0.5)


def test_rate_after_the_last_epoch() -> None:
    """A run that is given more epochs goes on from there."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.5)
    scheduler = linear_decay(optimizer, 2, start=1.0)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_longer_schedule_replaces_the_saved_rate() -> None:
    def made(epochs: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
        return optimizer, linear_decay(optimizer, epochs, start=0.5)

    short, schedule = made(4)
    for _ in range(4):
        short.step()
        schedule.step()
    assert short.param_groups[0]["lr"] == 0.0
    long, longer = made(16)
    long.load_state_dict(short.state_dict())
    longer.load_state_dict(schedule.state_dict())
    apply_schedule(longer)
    assert long.param_groups[0]["lr"] == 0.5

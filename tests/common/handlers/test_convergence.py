from __future__ import annotations

import io
import logging
import math
from typing import Any

import pytest
import torch

from common.handlers.convergence import Convergence, relative_change


def decaying(iteration: int) -> dict[str, float]:
    """Falls by a tenth per iteration until 40, flat from then on."""
    return {"G_loss": 0.9 ** min(iteration, 40), "D_loss": 0.7}


def drifting(iteration: int) -> dict[str, float]:
    return {"G_loss": 1.01**iteration, "D_loss": 0.7}


def oscillating(iteration: int) -> dict[str, float]:
    return {"G_loss": 2 + math.sin(2 * math.pi * iteration / 4), "D_loss": 0.7 + 0.3 * (-1) ** iteration}


def measure(**changes: Any) -> Convergence:
    return Convergence(**({"window": 8, "tolerance": 0.01, "patience": 2} | changes))


def test_relative_change_is_the_largest_of_all_losses() -> None:
    assert relative_change([2.0, -1.0], [1.8, -1.5]) == pytest.approx(0.5)


def test_decaying_then_flat_converges_at_the_known_place(trainer: Any) -> None:
    # Window 33-40 still falls, so 41-48 differs from it; 49-56 and 57-64 are the two stable ones.
    handler = measure()
    trainer(decaying, [handler]).train(96)
    assert handler.converged_at == 64


@pytest.mark.parametrize(("logs", "converges"), [(drifting, False), (oscillating, True)])
def test_drift_is_no_convergence_but_oscillation_is(trainer: Any, logs: Any, converges: bool) -> None:
    handler = measure()
    trainer(logs, [handler]).train(96)
    assert (handler.converged_at > 0) == converges


def test_all_losses_have_to_settle(trainer: Any) -> None:
    handler = measure(names=["D_loss"])
    trainer(drifting, [handler]).train(48)
    assert handler.converged_at == 24


def test_the_measure_is_logged_at_the_end_of_a_window(trainer: Any) -> None:
    engine = trainer(drifting, [measure()]).train(16)
    assert engine.state.logs["convergence"] == pytest.approx(1.01**8 - 1)
    assert "convergence" not in trainer(drifting, [measure()]).train(12).state.logs


def test_stop_ends_the_run_with_one_line(trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "common.handlers.convergence"):
        engine = trainer(decaying, [measure(stop=True)]).train(96)
    assert engine.state.iteration == 64
    (line,) = caplog.messages
    assert line.startswith(
        "converged at iteration 64: G_loss and D_loss moved by less than 0.01 in each of 2 windows"
    )


def test_a_converged_run_does_not_train_on_when_resumed(trainer: Any) -> None:
    handler = measure(stop=True)
    trainer(decaying, [handler]).train(96)
    assert trainer(decaying, [handler], start=64).train(96).state.iteration == 64


@pytest.mark.parametrize("cut", [4, 8, 20, 56])
def test_resumed_goes_on_exactly(trainer: Any, cut: int) -> None:
    whole, first, second = measure(), measure(), measure()
    trainer(decaying, [whole]).train(64)
    trainer(decaying, [first]).train(cut)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    trainer(decaying, [second], start=cut).train(64)
    assert (second.converged_at, second.medians, second.values) == (64, whole.medians, whole.values)

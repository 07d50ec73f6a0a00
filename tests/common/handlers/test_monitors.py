"""The monitors beside a real training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from common.handlers.monitors import (
    ConstantOutputMonitor,
    GradientNormMonitor,
    ModeCollapseMonitor,
    gradient_norm,
)
from common.inference.sampling import latents
from common.metrics.features import RandomVGG
from common.training.trainer import MultiStepTrainer
from tests.common.training.test_trainer import LATENT, logged, weights, wgan_gp


def monitors() -> list[Any]:
    batch = {
        "latent": latents(0, range(6), LATENT),
        "image": torch.linspace(-1, 1, 6 * 256).view(6, 1, 16, 16),
    }
    return [
        ModeCollapseMonitor(batch, RandomVGG(), interval=2),
        ConstantOutputMonitor(),
        GradientNormMonitor(loss_below=None),
    ]


def test_a_watched_training_is_the_same_to_the_bit() -> None:
    runs, found = [], []
    for handlers in ([], monitors()):
        trainer = wgan_gp()  # which seeds torch
        for handler in handlers:
            handler.attach(trainer)
        found.append(logged(trainer))
        trainer.run()
        runs.append(weights(trainer))
    (first, second), (plain, seen) = runs, found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(mine.items() <= theirs.items() for mine, theirs in zip(plain, seen, strict=True))
    assert ["diversity_modes" in logs for logs in seen] == [False, True, False, True]  # an iteration an epoch
    assert all("black_share" in logs for logs in seen)


@pytest.mark.parametrize("name", ["D", "G"])
def test_gradients_are_those_of_each_networks_last_update(name: str) -> None:
    trainer = wgan_gp()
    norms: list[float] = []
    last = {"D": 3, "G": 4}[name]  # three updates of the critic, then one of the generator
    calls = 0

    def note(engine: MultiStepTrainer) -> None:
        nonlocal calls
        calls += 1
        if (calls - 1) % 4 == last - 1:
            norms.append(gradient_norm(engine.networks[name].parameters()))

    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, note)
    GradientNormMonitor(loss_below=None).attach(trainer)
    found: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: found.append(trainer.state.logs[f"{name}_gradient_norm"])
    )
    trainer.run()
    assert found == pytest.approx(norms) and len(set(found)) == 4 and min(found) > 0

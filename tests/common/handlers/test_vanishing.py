from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from common.handlers.vanishing import Vanishing, gradient_norm


class Gradients:
    """Attached first, it leaves gradients as steps do: D's are 3 and 4, tiny from iteration 5 to 9."""

    def attach(self, engine: Any) -> None:
        engine.networks = {"G": nn.Linear(1, 1), "D": nn.Linear(1, 1)}
        engine.add_event_handler(Events.ITERATION_STARTED, self._leave)

    def _leave(self, engine: Any) -> None:
        scale = 1e-5 if 5 <= engine.state.iteration <= 9 else 1.0
        for network, values in (("D", (3.0, 4.0)), ("G", (0.0, 2.0))):
            layer = engine.networks[network]
            layer.weight.grad = torch.full((1, 1), values[0] * (scale if network == "D" else 1))
            layer.bias.grad = torch.full((1,), values[1] * (scale if network == "D" else 1))


class Recorder:
    def __init__(self, name: str) -> None:
        self.name, self.found = name, list[float]()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def _note(self, engine: Any) -> None:
        self.found.append(engine.state.logs[self.name])


def falling(iteration: int) -> dict[str, float]:
    """The discriminator's loss is 0 for good from iteration 7 on."""
    return {"D_loss": 0.0 if iteration >= 7 else 0.5}


def watch(**changes: Any) -> Vanishing:
    return Vanishing(**({"loss_below": 0.01, "gradient_below": 1e-3, "patience": 4} | changes))


def test_gradient_norm_is_that_of_all_gradients_together() -> None:
    layers = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    layers[0].weight.grad = torch.tensor([[2.0, -3.0]])
    layers[1].bias.grad = torch.tensor([6.0])
    assert gradient_norm(layers.parameters()) == pytest.approx(7.0)
    assert gradient_norm(nn.Linear(1, 1).parameters()) == 0.0


def test_each_measure_counts_and_warns_once(trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    counts, lengths = Recorder("vanishing_iterations"), Recorder("D_gradient_norm")
    engine = trainer(falling, [Gradients(), watch(), counts, lengths]).train(12)
    assert counts.found == [0, 0, 0, 0, 1, 2, 3, 4, 5, 4, 5, 6]  # the gradient's until 9, then the loss's
    assert lengths.found == pytest.approx([5.0] * 4 + [5e-5] * 5 + [5.0] * 3)
    assert engine.state.logs["G_gradient_norm"] == pytest.approx(2.0)
    assert caplog.messages == [
        "vanishing D_gradient_norm at iteration 8, epoch 2: 5e-05 is below 0.001, for 4 iterations in a row",
        "vanishing D_loss at iteration 10, epoch 3: 0 is below 0.01, for 4 iterations in a row",
    ]


def test_a_critics_loss_has_no_bound(trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    critic = watch(loss_below=None, gradient_below=None, patience=1)
    engine = trainer(lambda iteration: {"D_loss": -9.0}, [Gradients(), critic]).train(8)
    assert not caplog.messages and engine.state.logs["vanishing_iterations"] == 0


def test_overflowed_gradients_are_neither_logged_nor_vanishing(trainer: Any, plain_losses: Any) -> None:
    handler = watch()
    engine = trainer(plain_losses, [handler])
    network = engine.networks["D"] = nn.Linear(1, 1)
    network.bias.grad = torch.tensor([float("inf")])
    engine.train(4)
    assert "D_gradient_norm" not in engine.state.logs and handler.iterations["D_gradient_norm"] == 0


def test_stop_ends_the_run(trainer: Any) -> None:
    assert trainer(falling, [Gradients(), watch(stop=True)]).train(12).state.iteration == 8


@pytest.mark.parametrize("cut", [4, 8])
def test_resumed_goes_on_exactly(trainer: Any, cut: int) -> None:
    whole, first, second = watch(), watch(), watch()
    trainer(falling, [Gradients(), whole]).train(12)
    trainer(falling, [Gradients(), first]).train(cut)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    trainer(falling, [Gradients(), second], start=cut).train(12)
    assert second.state_dict() == whole.state_dict() and second.iterations["D_loss"] == 6


def test_a_run_that_watched_less_can_be_gone_on_with(trainer: Any) -> None:
    first, second = watch(loss_below=None), watch()
    trainer(falling, [Gradients(), first]).train(8)
    second.load_state_dict(first.state_dict())
    assert second.iterations == {"D_loss": 0, "D_gradient_norm": 4, "G_gradient_norm": 0}

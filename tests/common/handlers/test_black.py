from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from common.handlers.black import BlackOutput

BLACK_EPOCHS = {2, 3, 4, 6}


class Painter:
    """Attached first, it decides what the generator has painted: half of the images flat in black epochs."""

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self._paint)

    def _paint(self, engine: Any) -> None:
        images = torch.linspace(-1, 1, 4 * 8 * 8).view(4, 1, 8, 8).clone()  # contrast 0.15
        if engine.state.epoch in BLACK_EPOCHS:
            images[0] = -1.0
            images[1] = 0.4 + 0.01 * torch.sign(torch.linspace(-1, 1, 64)).view(1, 8, 8)  # contrast 0.01
        engine.pred = images


class Recorder:
    """What the logs hold at the end of each epoch."""

    def __init__(self) -> None:
        self.found: list[tuple[float | None, float | None]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._note)

    def _note(self, engine: Any) -> None:
        logs = engine.state.logs
        self.found.append((logs.get("black_share"), logs.get("black_epochs")))


def test_share_and_epochs_in_a_row(trainer: Any, plain_losses: Any, caplog: pytest.LogCaptureFixture) -> None:
    recorder, handler = Recorder(), BlackOutput(share=0.5, patience=3)
    trainer(plain_losses, [Painter(), handler, recorder]).train(28)
    assert recorder.found == [(0, 0), (0.5, 1), (0.5, 2), (0.5, 3), (0, 0), (0.5, 1), (0, 0)]
    assert caplog.messages == [
        "black output at iteration 16, epoch 4: 50% of the generated images are near-constant, "
        "for 3 epochs in a row"
    ]


def test_a_higher_share_and_a_lower_contrast_are_borne(trainer: Any, plain_losses: Any) -> None:
    patient, exact = BlackOutput(share=0.51, patience=1), BlackOutput(patience=1, minimum_contrast=0.005)
    trainer(plain_losses, [Painter(), patient, exact]).train(12)
    assert (patient.epochs, exact.epochs) == (0, 0)


def test_stop_ends_the_run_after_the_epoch(trainer: Any, plain_losses: Any) -> None:
    engine = trainer(plain_losses, [Painter(), BlackOutput(patience=2, stop=True)]).train(28)
    assert engine.state.iteration == 12


@pytest.mark.parametrize("cut", [4, 12])
def test_resumed_goes_on_exactly(trainer: Any, plain_losses: Any, cut: int) -> None:
    whole, first, second = BlackOutput(), BlackOutput(), BlackOutput()
    trainer(plain_losses, [Painter(), whole]).train(16)
    trainer(plain_losses, [Painter(), first]).train(cut)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    trainer(plain_losses, [Painter(), second], start=cut).train(16)
    assert second.state_dict() == whole.state_dict() and second.epochs == 3


def test_the_count_within_an_epoch_is_kept() -> None:
    first, second = BlackOutput(), BlackOutput()
    first.flat, first.images = 3, 8
    second.load_state_dict(first.state_dict())
    assert (second.flat, second.images) == (3, 8)

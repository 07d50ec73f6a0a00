from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from common.errors import TrainingDiverged
from common.handlers.divergence import DivergenceGuard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named(trainer: Any, value: float) -> None:
    def logs(iteration: int) -> dict[str, float]:
        return {"loss": 1.0, "G_l1": value if iteration == 3 else 0.5}

    with pytest.raises(
        TrainingDiverged, match=rf"^iteration 3: G_l1 is {value}; no checkpoint had been written"
    ):
        trainer(logs, [DivergenceGuard()]).train(4)


def test_the_message_names_the_checkpoint_and_nothing_later_runs(
    trainer: Any, plain_losses: Any, tmp_path: Path
) -> None:
    class Saver:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: saved.append(engine.state.iteration))

    saved: list[int] = []
    checkpoint = tmp_path / "resume.pt"
    checkpoint.touch()
    engine = trainer(
        lambda i: {"loss": math.nan if i == 2 else 1.0}, [DivergenceGuard(checkpoint=checkpoint), Saver()]
    )
    with pytest.raises(
        TrainingDiverged, match=r"iteration 2: loss is nan; the last good checkpoint is .*resume\.pt;"
    ):
        engine.train(4)
    assert saved == [1]


def black(trainer: Any, logs: Any, guard: DivergenceGuard, start: int = 0) -> Any:
    engine = trainer(logs, [guard], start=start)
    engine.pred = torch.full((2, 1, 8, 8), -1.0)
    return engine


def test_black_images_are_borne_for_a_while(trainer: Any, plain_losses: Any) -> None:
    black(trainer, plain_losses, DivergenceGuard(patience=5)).train(4)
    with pytest.raises(
        TrainingDiverged, match=r"^iteration 5: constant images \(-1\.00 of -1\.\.1\) for 5 iterations"
    ):
        black(trainer, plain_losses, DivergenceGuard(patience=5)).train(8)


def test_black_images_are_borne_for_good_where_others_judge_them(trainer: Any, plain_losses: Any) -> None:
    guard = DivergenceGuard(patience=None)
    assert black(trainer, plain_losses, guard).train(80).state.iteration == 80


def test_what_a_generator_puts_out_beside_its_image_hides_nothing(trainer: Any, plain_losses: Any) -> None:
    engine = trainer(plain_losses, [DivergenceGuard(patience=3)], start=0)
    engine.pred = torch.cat([torch.full((2, 1, 8, 8), -1.0), torch.randn(2, 3, 8, 8)], dim=1)
    with pytest.raises(TrainingDiverged, match=r"constant images \(-1\.00"):
        engine.train(4)


def test_the_count_goes_on_after_a_resume(trainer: Any, plain_losses: Any) -> None:
    first, second = DivergenceGuard(patience=6), DivergenceGuard(patience=6)
    black(trainer, plain_losses, first).train(4)
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingDiverged, match=r"^iteration 6:"):
        black(trainer, plain_losses, second, start=4).train(8)


def test_one_image_that_shows_something_is_enough(trainer: Any, plain_losses: Any) -> None:
    engine = black(trainer, plain_losses, DivergenceGuard(patience=2))
    engine.pred[1, 0, :4] = 1.0
    assert engine.train(4).state.iteration == 4


def test_an_image_with_nan_is_found(trainer: Any, plain_losses: Any) -> None:
    engine = trainer(plain_losses, [DivergenceGuard()])
    engine.pred[1, 0, 0, 0] = math.nan
    with pytest.raises(TrainingDiverged, match="iteration 1: the generated images hold NaN"):
        engine.train(4)


def test_outputs_that_are_no_pictures_may_be_constant(trainer: Any, plain_losses: Any) -> None:
    for shape in ((2, 1), (2, 30, 5)):
        engine = black(trainer, plain_losses, DivergenceGuard(patience=2))
        engine.pred = torch.zeros(shape)
        engine.train(4)


def test_a_classifiers_output_is_borne(trainer: Any, plain_losses: Any) -> None:
    engine = trainer(plain_losses, [DivergenceGuard(patience=2)])
    engine.pred = torch.tensor([[0.5, -0.5], [1.0, 2.0]])  # (B, K)
    assert engine.train(4).state.iteration == 4

from __future__ import annotations

from typing import Any

import pytest

from common.errors import UserError
from common.handlers.accuracy import AccuracyAverage


def logs(iteration: int) -> dict[str, float]:
    return {"D_accuracy_real": 1.0 if iteration == 1 else 0.0}


def test_the_average_starts_with_the_first_value_and_decays(trainer: Any) -> None:
    engine = trainer(logs, [AccuracyAverage(["D_accuracy_real"], smoothing=0.5)]).train(4)
    assert engine.state.logs == {"D_accuracy_real": 0.0, "D_accuracy_real_ema": 0.125}


def test_resumed_goes_on_exactly(trainer: Any) -> None:
    def noisy(iteration: int) -> dict[str, float]:
        return {"D_accuracy_real": (iteration * 7 % 11) / 11}

    whole, first, second = (AccuracyAverage(["D_accuracy_real"]) for _ in range(3))
    trainer(noisy, [whole]).train(12)
    trainer(noisy, [first]).train(4)
    second.load_state_dict(first.state_dict())
    trainer(noisy, [second], start=4).train(12)
    assert second.averages == whole.averages


def test_an_unknown_name_is_named(trainer: Any) -> None:
    with pytest.raises(UserError, match="logs no 'D_accuracy_fake'; it logs D_accuracy_real"):
        trainer(logs, [AccuracyAverage(["D_accuracy_real", "D_accuracy_fake"])]).train(4)


def test_a_critic_has_no_accuracy(trainer: Any) -> None:
    engine = trainer(lambda iteration: {"D_loss": 1.0}, [AccuracyAverage()]).train(4)
    assert engine.state.logs == {"D_loss": 1.0}

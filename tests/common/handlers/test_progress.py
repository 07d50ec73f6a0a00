from __future__ import annotations

from typing import Any

import pytest

from common.handlers.progress import ProgressBar


def test_the_whole_run_is_shown_with_losses(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar(names=["D_loss"])]).train(8)
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert "8/8" in last and "D_loss=0.8" in last and "it/s" in last and " loss=" not in last


def test_a_resumed_run_starts_where_it_was(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar()], start=6).train(8)
    first = capsys.readouterr().err.lstrip("\r").split("\r")[0]
    assert "6/8" in first


def test_a_log_file_is_not_flooded(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar()]).train(400)
    assert capsys.readouterr().err.count("\r") <= 4


def test_the_bar_closes_on_errors(trainer: Any) -> None:
    bar = ProgressBar()
    with pytest.raises(ZeroDivisionError):
        trainer(lambda iteration: {"loss": 1 / (iteration - 2)}, [bar]).train(4)
    assert bar.bar is None

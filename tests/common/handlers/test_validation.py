from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from common.handlers.logging import TrainingLogger
from common.handlers.validation import Validation, scalar_metrics
from common.training.checkpoint import BestModelSaver


def evaluator(network: nn.Module) -> SupervisedEvaluator:
    """Its metric is the network's weight, which the test changes; it consumes random numbers on the way."""

    def value(output: Any) -> float:
        torch.rand(1)
        assert not network.training
        return float(network.weight.detach())

    item = {"image": torch.zeros(1, 2, 2), "label": torch.zeros(1, 2, 2)}
    loader = DataLoader([item, item], batch_size=1)
    return SupervisedEvaluator(torch.device("cpu"), loader, network, key_val_metric={"mae": Average(value)})


def run(trainer: Any, folder: Path, interval: int, iterations: int) -> tuple[Validation, list[int]]:
    """A run whose generator's weight (and metric) is ``|iteration - 7|``: of 4, 8 and 12 the best is 8."""
    network, log = nn.Conv2d(1, 1, 1), TrainingLogger(folder)

    def logs(iteration: int) -> dict[str, float]:
        with torch.no_grad():
            network.weight.fill_(abs(iteration - 7))
        return {"loss": 1.0}

    best = BestModelSaver(folder / "model.pt", score="mae")
    handler = Validation(evaluator(network), log, best, interval)
    engine = trainer(logs, [log, handler])
    engine.networks = {"G": network}
    engine.train(iterations)
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return handler, [event.step for event in accumulator.Scalars("val/mae")]


def test_every_n_epochs_and_the_best_is_kept(tmp_path: Path, trainer: Any) -> None:
    handler, steps = run(trainer, tmp_path, interval=1, iterations=12)
    assert steps == [4, 8, 12]
    assert handler.best is not None and handler.best.best_iteration == 8
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"]) == 1.0


@pytest.mark.parametrize(("interval", "expected"), [(2, [8, 12]), (3, [12]), (0, [12])])
def test_the_end_is_validated_once(tmp_path: Path, trainer: Any, interval: int, expected: list[int]) -> None:
    assert run(trainer, tmp_path, interval, iterations=12)[1] == expected


def test_the_training_does_not_notice(tmp_path: Path, trainer: Any) -> None:
    torch.manual_seed(3)
    nn.Conv2d(1, 1, 1)  # the network of the run
    expected = torch.rand(4)
    torch.manual_seed(3)
    handler, _ = run(trainer, tmp_path, interval=1, iterations=8)
    assert torch.equal(torch.rand(4), expected)
    assert handler.evaluator.network.training


def test_the_last_validation_is_remembered(tmp_path: Path, trainer: Any) -> None:
    handler, _ = run(trainer, tmp_path, interval=1, iterations=4)
    restored = Validation(handler.evaluator, handler.log)
    restored.load_state_dict(handler.state_dict())
    assert restored.last_iteration == 4


def test_single_numbers_only() -> None:
    metrics = {"a": 1, "b": np.float32(0.5), "c": torch.tensor([2.0]), "d": torch.zeros(3), "e": "x", "f": {}}
    assert scalar_metrics(metrics) == {"a": 1.0, "b": 0.5, "c": 2.0}
    assert Counter(map(type, scalar_metrics(metrics).values())) == {float: 3}

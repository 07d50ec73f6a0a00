"""The group of handlers that the configs make, on a toy training."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.metrics import Average, Metric
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.utils.data import DataLoader

from common.handlers import HandlerGroup, default_handlers
from common.handlers.image_logging import ImageGrid, SampleGrid
from common.handlers.monitors import ConstantOutputMonitor
from common.training.checkpoint import read_state
from tests.common.training.toy import toy_trainer

IN_OLD_RESUME_FILES = {"guard", "accuracy", "convergence", "best", "validation", "budget"}
PAIRS = {"label": torch.zeros(3, 1, 16, 16), "image": torch.zeros(3, 1, 16, 16)}


def group(folder: Path, **settings: Any) -> HandlerGroup:
    item = {"image": torch.zeros(1, 2, 2), "label": torch.zeros(1, 2, 2)}
    loader: Any = DataLoader([item], batch_size=1)  # type: ignore[arg-type]  # a list is a dataset
    metric: dict[str, Metric] = {"mae": Average(lambda _: 0.5)}
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, nn.Conv2d(1, 1, 1), key_val_metric=metric)
    return default_handlers(folder, evaluator, score="mae", **settings)


def test_they_act_in_this_order(tmp_path: Path) -> None:
    monitors = {"black": ConstantOutputMonitor(), "accuracy": None}
    made = group(tmp_path, examples=PAIRS, progression=["lesion"], monitors=monitors)
    order = "guard convergence black log images progression validation best budget resume progress"
    assert list(made.handlers) == order.split()


@pytest.mark.parametrize(
    ("examples", "kind"), [(PAIRS, ImageGrid), ({"latent": torch.zeros(8, 2)}, SampleGrid), (None, None)]
)
def test_the_examples_decide_how_they_are_drawn(tmp_path: Path, examples: Any, kind: type | None) -> None:
    assert type(group(tmp_path, examples=examples).handlers.get("images")) is (kind or type(None))


def test_a_run_leaves_its_files_and_is_resumed_with_all_states(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"examples": PAIRS, "name": "second", "image_iterations": [0]}
    toy_trainer(max_epochs=2, handlers=[group(tmp_path, **settings)]).run()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file()}
    kept = {name for name in files if "tfevents" not in name}
    assert len(files) == len(kept) + 1
    assert kept == {
        *("models/second.pt", "models/second.json", "models/second/resume.pt"),
        *("models/second/resume_previous.pt", "logs/second/losses.csv"),
        *(f"logs/second/samples/iteration_{step:06d}.png" for step in (0, 4, 8)),
    }
    state = read_state(tmp_path / "models" / "second")
    assert state is not None and set(state["handlers"]) == IN_OLD_RESUME_FILES
    again = group(tmp_path, resume=True, **settings)
    with caplog.at_level(logging.INFO):
        toy_trainer(max_epochs=3, handlers=[again]).run()
    assert "resumed after iteration 8" in caplog.text
    assert again.handlers["validation"].last_iteration == 12 and again.handlers["best"].best_iteration == 4
    with (tmp_path / "logs" / "second" / "losses.csv").open(newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == list(range(1, 13))

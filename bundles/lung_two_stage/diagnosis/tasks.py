"""What a diagnosis network is trained for and judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.losses import DiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn

from bundles.lung_two_stage.diagnosis.slices import NODULE, SliceItems, Slices
from common.metrics.classification import balanced_accuracy, macro_area, recalls
from common.metrics.comparison import Metric
from common.training.in_memory import predictions

SEGMENTATION = "segmentation"


@dataclass(frozen=True)
class Task:
    """What is trained and how it is judged.

    Args:
        name: ``nodule``, ``category`` or ``segmentation``.
        make: makes an untrained network.
        terms: losses.
        target: entry of the items.
        outcome: what the trained network says of the test slices, (N, ...).
        metrics: of the outcomes, weighted; higher is better for all. The first is the leading one.
    """

    name: str
    make: Callable[[], nn.Module]
    terms: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    target: str
    outcome: Callable[[nn.Module, Slices], NDArray]
    metrics: Mapping[str, Metric]


def classification(
    task: str, make: Callable[[], nn.Module], classes: int, device: torch.device | str = "cpu"
) -> Task:
    """The diagnosis of slices: nodule or none, or of which category.

    Outcomes are (N, classes + 1): probabilities, then the true class.
    """

    def outcome(network: nn.Module, test: Slices) -> NDArray:
        items = SliceItems(test, task)
        probabilities = predictions(network, test.images, device).softmax(1).double().numpy()
        return np.concatenate([probabilities, items.classes[:, None]], axis=1)

    def found(rows: NDArray) -> tuple[NDArray, NDArray]:
        return rows[:, :-1].argmax(1), rows[:, -1].astype(np.int64)

    metrics: dict[str, Metric] = {
        "auc": lambda rows, counts: macro_area(rows[:, :-1], rows[:, -1].astype(np.int64), counts),
        "balanced_accuracy": lambda rows, counts: balanced_accuracy(*found(rows), classes, counts),
    }
    if task == NODULE:
        metrics["sensitivity"] = lambda rows, counts: float(recalls(*found(rows), 2, counts)[1])
        metrics["specificity"] = lambda rows, counts: float(recalls(*found(rows), 2, counts)[0])
    return Task(task, make, {"ce": nn.CrossEntropyLoss()}, "class", outcome, metrics)


def segmentation(make: Callable[[], nn.Module], device: torch.device | str = "cpu") -> Task:
    """The segmenter. Outcomes are (N, 3): pixels found and true, found, true."""

    def outcome(network: nn.Module, test: Slices) -> NDArray:
        found = predictions(network, test.images, device)[:, 0].numpy() > 0
        true = test.nodules > 0
        return np.stack([(a).sum((1, 2)) for a in (found & true, found, true)], axis=1).astype(np.float64)

    def dice(rows: NDArray, counts: NDArray) -> float:
        both, found, true = counts @ rows
        return float(2 * both / (found + true)) if found + true else math.nan

    terms = {"dice": DiceLoss(sigmoid=True, batch=True), "bce": nn.BCEWithLogitsLoss()}
    return Task(SEGMENTATION, make, terms, "label", outcome, {"dice": dice})

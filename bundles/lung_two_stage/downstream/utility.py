"""Downstream tasks: a classifier of slices, and what it gains from synthetic ones, on real test patients."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.losses import DiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn

from bundles.lung_two_stage.downstream.data import (
    CATEGORY,
    NODULE,
    OVERSAMPLED,
    REAL,
    REGIMES,
    SliceItems,
    Slices,
    Sources,
)
from common.data.replay import Transforms
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.downstream import (
    Metric,
    TrainingComparison,
    balanced_accuracy,
    describe_differences,
    holm,
    macro_area,
    recalls,
)
from common.rng import make_rng
from common.training.fit_supervised import Budget, fit, predictions, seeded

SEGMENTATION = "segmentation"

logger = logging.getLogger(__name__)


class SliceClassifier(nn.Module):
    """Maps slices (B, 1, H, W) in [-1, 1] to logits (B, classes).

    Convolutions and pooling, then the maximum and the mean of every channel: a nodule covers a hundredth of a
    slice, and a mean alone would hide it.

    Args:
        classes: 2 for nodule or none.
        width: channels of the first level; they double up to four times as many.
        levels: each two 3 x 3 convolutions with batch norm and ReLU; a 2 x 2 max pooling between two levels.
        dropout: before the last layer.

    Example:
        >>> SliceClassifier(classes=3, width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
    """

    def __init__(self, classes: int = 2, width: int = 16, levels: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = 1
        for level in range(levels):
            target = width * min(2**level, 4)
            layers += [*_convolved(source, target), *_convolved(target, target)]
            layers += [nn.MaxPool2d(2)] if level < levels - 1 else []
            source = target
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(2 * source, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, classes)."""
        maps = self.features(images)  # (B, C, h, w)
        pooled = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1)  # (B, 2 C)
        logits: Tensor = self.last(self.dropout(pooled))
        return logits


def _convolved(source: int, target: int) -> list[nn.Module]:
    convolution = nn.Conv2d(source, target, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(target), nn.ReLU()]


def image_to_class(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: ``image`` (B, 1, H, W) as input, ``class`` (B,) as target.

    Example:
        >>> batch = {"image": torch.zeros(2, 1, 8, 8), "class": [1, 0]}
        >>> image_to_class(batch)[1]
        tensor([1, 0])
    """
    image, target = batch["image"], torch.as_tensor(batch["class"])
    return image.to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)


def logits_and_classes(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: logits (B, K) and classes (B,), decollated or not.

    Example:
        >>> logits_and_classes({"pred": torch.zeros(2, 3), "label": torch.tensor([2, 1])})[1]
        tensor([2, 1])
    """
    items = [output] if isinstance(output, Mapping) else list(output)
    logits = torch.cat([torch.as_tensor(item["pred"]).reshape(-1, item["pred"].shape[-1]) for item in items])
    classes = torch.cat([torch.as_tensor(item["label"]).reshape(-1) for item in items])
    return logits.as_subclass(Tensor), classes.as_subclass(Tensor).long()


def macro_auc_of_logits(logits: Tensor, classes: Tensor) -> float:
    """A ``compute_fn`` of ignite's ``EpochMetric``: AUC, macro-averaged; NaN where a class is missing.

    Example:
        >>> macro_auc_of_logits(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        1.0
    """
    return macro_area(logits.double().softmax(1).numpy(), classes.numpy())


def balanced_accuracy_of_logits(logits: Tensor, classes: Tensor) -> float:
    """A ``compute_fn`` of ignite's ``EpochMetric``: balanced accuracy; NaN where a class is missing.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> balanced_accuracy_of_logits(logits, torch.tensor([0, 1, 1]))
        0.75
    """
    return balanced_accuracy(logits.argmax(1).numpy(), classes.numpy(), logits.shape[1])


@dataclass(frozen=True)
class Task:
    """A downstream task: what is trained, and how it is evaluated.

    Args:
        name: ``nodule``, ``category`` or ``segmentation``.
        make: makes an untrained network.
        terms: losses by name.
        target: entry of the items.
        outcome: the trained network's results for the test slices, (N, ...).
        metrics: functions of outcomes and bootstrap counts, higher is better; the first is the main one.
    """

    name: str
    make: Callable[[], nn.Module]
    terms: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    target: str
    outcome: Callable[[nn.Module, Slices], NDArray]
    metrics: Mapping[str, Metric]


def classification(task: str, make: Callable[[], nn.Module], classes: int) -> Task:
    """Classification of slices: with or without a nodule, or by its category.

    Outcomes are (N, classes + 1): probabilities, then the true class.
    """

    def outcome(network: nn.Module, test: Slices) -> NDArray:
        items = SliceItems(test, task)
        probabilities = predictions(network, test.images, device_of(network)).softmax(1).double().numpy()
        return np.concatenate([probabilities, items.classes[:, None]], axis=1)

    def predicted(rows: NDArray) -> tuple[NDArray, NDArray]:
        return rows[:, :-1].argmax(1), rows[:, -1].astype(np.int64)

    metrics: dict[str, Metric] = {
        "auc": lambda rows, counts: macro_area(rows[:, :-1], rows[:, -1].astype(np.int64), counts),
        "balanced_accuracy": lambda rows, counts: balanced_accuracy(*predicted(rows), classes, counts),
    }
    if task == NODULE:
        metrics["sensitivity"] = lambda rows, counts: float(recalls(*predicted(rows), 2, counts)[1])
        metrics["specificity"] = lambda rows, counts: float(recalls(*predicted(rows), 2, counts)[0])
    return Task(task, make, {"ce": nn.CrossEntropyLoss()}, "class", outcome, metrics)


def segmentation(make: Callable[[], nn.Module]) -> Task:
    """Segmentation of nodules. Outcomes are (N, 3): pixels predicted and true, predicted, true."""

    def outcome(network: nn.Module, test: Slices) -> NDArray:
        predicted = predictions(network, test.images, device_of(network))[:, 0].numpy() > 0
        true = test.nodules > 0
        masks = (predicted & true, predicted, true)
        return np.stack([mask.sum((1, 2)) for mask in masks], axis=1).astype(np.float64)

    def dice(rows: NDArray, counts: NDArray) -> float:
        both, predicted, true = counts @ rows
        return float(2 * both / (predicted + true)) if predicted + true else math.nan

    terms = {"dice": DiceLoss(sigmoid=True, batch=True), "bce": nn.BCEWithLogitsLoss()}
    return Task(SEGMENTATION, make, terms, "label", outcome, {"dice": dice})


def device_of(network: nn.Module) -> torch.device:
    """Where a network is: its training may have moved it."""
    return next(network.parameters()).device


class Utility:
    """Trains a task's network with every training set and several seeds, and compares on the test slices.

    Args:
        sources: the sets.
        regimes: of `REGIMES`; the others are compared with ``real`` and ``oversampled``.
        seeds: trainings of each regime; all regimes of a seed have the same initial weights and order.
        budget: of each training.
        augmentation: random MONAI dictionary transforms of the training slices; None for none.
        resamples: of the bootstrap over test patients and seeds.
        seed: of the first training and of the bootstrap.
        device: where networks run.

    Example:
        >>> nodules = np.pad(np.ones((2, 2, 2), np.uint8), ((0, 1), (2, 4), (2, 4)))  # none in the third
        >>> slices = Slices(torch.zeros(3, 1, 8, 8), nodules, ["a", "b", "c"])
        >>> budget = {"iterations": 1, "batch_size": 2}
        >>> utility = Utility(Sources(*[slices] * 4), ["real", "both"], 1, budget, resamples=2)
        >>> sorted(utility.compare(segmentation(lambda: nn.Conv2d(1, 1, 3, padding=1)))["metrics"]["dice"])
        ['both', 'real']
    """

    def __init__(
        self,
        sources: Sources,
        regimes: Sequence[str] = REGIMES,
        seeds: int = 3,
        budget: Budget | Mapping[str, Any] | None = None,
        augmentation: Transforms = None,
        resamples: int = 1000,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sources, self.regimes, self.seeds = sources, list(regimes), range(seed, seed + seeds)
        self.budget = budget if isinstance(budget, Budget) else Budget(**(budget or {}))
        self.augmentation = augmentation
        self.count, self.seed, self.device = resamples, seed, device

    def compare(self, task: Task) -> dict[str, Any]:
        """Metrics of all regimes, their differences to the real ones and a sentence, as plain data."""
        test = SliceItems(self.sources.test, CATEGORY if task.name == CATEGORY else NODULE).slices
        outcomes = {regime: self._outcomes(task, regime, test) for regime in self.regimes}
        counts = resample_counts(
            test.patients, len(test), self.count, make_rng(self.seed, "utility", task.name)
        )
        drawn = resample_counts(
            None, len(self.seeds), self.count, make_rng(self.seed, "utility", task.name, "seeds")
        )
        comparison = TrainingComparison(outcomes, Resamples(counts, test.patients), drawn)
        metrics = {
            name: {regime: comparison.value(regime, metric).plain() for regime in self.regimes}
            for name, metric in task.metrics.items()
        }
        name, main = next(iter(task.metrics.items()))
        differences = {base: self._differences(comparison, base, main) for base in (REAL, OVERSAMPLED)}
        plain = {
            base: {regime: value.plain() for regime, value in part.items()}
            for base, part in differences.items()
        }
        return {
            "seeds": len(self.seeds),
            "test_slices": len(test),
            "test_patients": len(set(test.patients)),
            "metrics": metrics,
            "by_seed": {regime: comparison.by_seed(regime, main) for regime in self.regimes},
            "differences": plain[REAL],
            "differences_to_oversampled": plain[OVERSAMPLED],
            "sentence": _sentence(task.name, name, differences),
        }

    def _differences(self, comparison: TrainingComparison, base: str, metric: Metric) -> dict[str, Value]:
        """Differences of the regimes to ``base``; for `OVERSAMPLED`, only of those with synthetic slices."""
        others = [regime for regime in self.regimes if regime not in (REAL, base)]
        return {r: comparison.difference(r, base, metric) for r in others if base in self.regimes}

    def _outcomes(self, task: Task, regime: str, test: Slices) -> list[NDArray]:
        kind = CATEGORY if task.name == CATEGORY else NODULE
        items = SliceItems(self.sources.training(regime), kind, self.augmentation, self.seed)
        parts = [
            int(part.has_nodule.sum()) if kind == CATEGORY else len(part)
            for part in self.sources.parts(regime)
        ]
        outcomes = []
        for seed in self.seeds:
            network = seeded(task.make, seed, task.name)
            with torch.random.fork_rng(devices=[]):  # dropout: the same for all regimes
                torch.manual_seed(seed)
                sizes = [size for size in parts if size]
                fit(network, items, task.terms, task.target, self.budget, seed, self.device, sizes)
            outcomes.append(task.outcome(network, test))
            logger.info(f"{task.name}, {regime}, seed {seed}: trained on {len(items)} slices")
        return outcomes


def _sentence(task: str, metric: str, differences: Mapping[str, Mapping[str, Value]]) -> str:
    """Describes the differences to real slices alone and to oversampled ones, with one correction for all."""
    family = {
        f"{regime}, {base}": value for base, part in differences.items() for regime, value in part.items()
    }
    adjusted = holm(family)
    names = {REAL: "real slices alone", OVERSAMPLED: "real slices with their nodules repeated"}
    parts = [
        describe_differences(
            task, metric, part, {regime: adjusted[f"{regime}, {base}"] for regime in part}, names[base]
        )
        for base, part in differences.items()
        if part or base == REAL
    ]
    return ". ".join(parts)

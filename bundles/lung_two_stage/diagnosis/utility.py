"""The purpose of it all: does a diagnosis gain from synthetic slices? Measured on real test patients."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from bundles.lung_two_stage.diagnosis.slices import CATEGORY, NODULE, SliceItems, Slices
from bundles.lung_two_stage.diagnosis.sources import OVERSAMPLED, REAL, REGIMES, Sources
from bundles.lung_two_stage.diagnosis.tasks import Task
from common.data.augment import Augmentation
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.comparison import Metric, TrainingComparison, holm, sentence
from common.random import generator
from common.training.in_memory import Budget, fit, seeded

logger = logging.getLogger(__name__)


class Utility:
    """Trains a task's network in every regime with several seeds, and compares on the test slices.

    Args:
        sources: the sets.
        regimes: of `REGIMES`; ``real`` and ``oversampled`` are what the others are compared with.
        seeds: trainings of each regime; the same first weights and order for all regimes of a seed.
        budget: of each training.
        resamples: of the bootstrap over test patients and seeds.
        seed: of the first training and of the bootstrap.
    """

    def __init__(
        self,
        sources: Sources,
        regimes: Sequence[str] = REGIMES,
        seeds: int = 3,
        budget: Budget | Mapping[str, Any] | None = None,
        augment: Mapping[str, float] | None = None,
        resamples: int = 1000,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sources, self.regimes, self.seeds = sources, list(regimes), range(seed, seed + seeds)
        self.budget = budget if isinstance(budget, Budget) else Budget(**(budget or {}))
        self.augment = Augmentation(**augment) if augment is not None else None
        self.count, self.seed, self.device = resamples, seed, device

    def compare(self, task: Task) -> dict[str, Any]:
        """Plain data: every regime's metrics, their differences to ``real``, a sentence that follows them."""
        test = SliceItems(self.sources.test, CATEGORY if task.name == CATEGORY else NODULE).slices
        outcomes = {regime: self._outcomes(task, regime, test) for regime in self.regimes}
        counts = resample_counts(
            test.patients, len(test), self.count, generator(self.seed, "utility", task.name)
        )
        drawn = resample_counts(
            None, len(self.seeds), self.count, generator(self.seed, "utility", task.name, "seeds")
        )
        judge = TrainingComparison(outcomes, Resamples(counts, test.patients), drawn)
        metrics = {
            name: {regime: judge.value(regime, metric).plain() for regime in self.regimes}
            for name, metric in task.metrics.items()
        }
        name, leading = next(iter(task.metrics.items()))
        differences = {base: self._differences(judge, base, leading) for base in (REAL, OVERSAMPLED)}
        return {
            "seeds": len(self.seeds),
            "test_slices": len(test),
            "test_patients": len(set(test.patients)),
            "metrics": metrics,
            "by_seed": {regime: judge.by_seed(regime, leading) for regime in self.regimes},
            "differences": {regime: value.plain() for regime, value in differences[REAL].items()},
            "differences_to_oversampled": {
                regime: value.plain() for regime, value in differences[OVERSAMPLED].items()
            },
            "sentence": _sentence(task.name, name, differences),
        }

    def _differences(self, judge: TrainingComparison, base: str, metric: Metric) -> dict[str, Value]:
        """Of the regimes to ``base``; `OVERSAMPLED` is compared with what has synthetic slices only."""
        others = [regime for regime in self.regimes if regime not in (REAL, base)]
        return {regime: judge.difference(regime, base, metric) for regime in others if base in self.regimes}

    def _outcomes(self, task: Task, regime: str, test: Slices) -> list[NDArray]:
        wanted = CATEGORY if task.name == CATEGORY else NODULE
        items = SliceItems(self.sources.training(regime), wanted, self.augment, self.seed)
        parts = [
            len(part) if wanted == NODULE else int(part.has_nodule.sum())
            for part in self.sources.parts(regime)
        ]
        parts = [size for size in parts if size]
        found = []
        for seed in self.seeds:
            network = seeded(task.make, seed, task.name)
            with torch.random.fork_rng(devices=[]):  # dropout: the same for all regimes
                torch.manual_seed(seed)
                fit(network, items, task.terms, task.target, self.budget, seed, self.device, parts)
            found.append(task.outcome(network, test))
            logger.info(f"{task.name}, {regime}, seed {seed}: trained on {len(items)} slices")
        return found


def _sentence(task: str, metric: str, differences: Mapping[str, Mapping[str, Value]]) -> str:
    """What the differences to real slices as they are say, and those to real slices with their few nodules
    repeated, which costs nothing: all judged together."""
    family = {
        f"{regime}, {base}": value for base, part in differences.items() for regime, value in part.items()
    }
    adjusted = holm(family)
    names = {REAL: "real slices alone", OVERSAMPLED: "real slices with their nodules repeated"}
    parts = [
        sentence(task, metric, part, {regime: adjusted[f"{regime}, {base}"] for regime in part}, names[base])
        for base, part in differences.items()
        if part or base == REAL
    ]
    return ". ".join(parts)

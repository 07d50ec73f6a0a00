"""Predictions -> every metric with its interval; with baselines -> the content of ``metrics.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import images as image_functions
from common.metrics.bootstrap import centred_interval, percentile_interval, resample_counts
from common.metrics.faithfulness import lesion_contrast, lesion_contrast_error, lesion_faithfulness
from common.metrics.features import FeatureExtractor, extract
from common.metrics.fid import fid
from common.metrics.kid import Kernels
from common.random import generator

FRECHET_RESAMPLES = 200  # of the resamples, as many are used for FID: each costs a matrix decomposition
LESION_METRICS = {"lesion_faithfulness": lesion_faithfulness, "lesion_contrast_error": lesion_contrast_error}


@dataclass(frozen=True)
class Value:
    """A metric's value over ``n`` images with its 95 % bootstrap interval; NaN for no or NaN images."""

    mean: float
    low: float
    high: float
    n: int

    def plain(self) -> dict[str, Any]:
        """For JSON, which knows no NaN: ``{"mean", "interval", "n"}`` with None instead."""
        low, high = _finite(self.low), _finite(self.high)
        return {"mean": _finite(self.mean), "interval": [low, high], "n": self.n}


class Evaluator:
    """Measures predictions against one set of real images. What concerns the real side is computed once.

    Args:
        images: real images (N, 1, H, W) in [-1, 1], N at least 2.
        labels: (N, C, H, W), lesion where above 0.5.
        extractor: for FID and KID, on ``device`` already; its name becomes part of theirs.
        patients: one id an image, for the cluster bootstrap; None draws single images.
        seed: of the bootstrap.
        resamples: number of bootstrap resamples (FID uses at most 200 of them).
    Raises:
        UserError: fewer than two images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        extractor: FeatureExtractor,
        patients: Sequence[str] | None = None,
        seed: int = 0,
        resamples: int = 1000,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(images) < 2:
            raise UserError(f"{len(images)} test images are too few to evaluate; at least 2 are needed")
        self.images, self.labels, self.extractor = images, labels, extractor
        self.batch_size, self.device = batch_size, device
        self.features = extract(extractor, images, batch_size, device)
        self.contrasts = lesion_contrast(images, labels)
        self.counts = resample_counts(patients, len(images), resamples, generator(seed, "bootstrap"))

    def __call__(self, predictions: Tensor) -> dict[str, Value]:
        """Every metric of predictions (N, 1, H, W) in [-1, 1], leading ones first: name -> value."""
        return {
            **self._feature_values(extract(self.extractor, predictions, self.batch_size, self.device)),
            **self._lesion_values(lesion_contrast(predictions, self.labels)),
            **self._image_values(predictions),
        }

    def _feature_values(self, features: Tensor) -> dict[str, Value]:
        kernels = Kernels(self.features, features)
        frechet = self._centred(lambda w: fid(self.features, features, w, w), FRECHET_RESAMPLES)
        kernel = self._centred(lambda w: kernels.discrepancy(w, w), len(self.counts))
        frechet = Value(frechet.mean, max(0.0, frechet.low), frechet.high, frechet.n)
        return {f"fid_{self.extractor.name}": frechet, f"kid_{self.extractor.name}": kernel}

    def _lesion_values(self, contrasts: Tensor) -> dict[str, Value]:
        usable = ~self.contrasts.isnan()
        if not usable.any():
            return {name: Value(math.nan, math.nan, math.nan, 0) for name in LESION_METRICS}
        pair, counts = (contrasts[usable], self.contrasts[usable]), self.counts[:, usable]
        return {
            name: Value(metric(*pair), *percentile_interval(partial(metric, *pair), counts), len(pair[0]))
            for name, metric in LESION_METRICS.items()
        }

    def _image_values(self, predictions: Tensor) -> dict[str, Value]:
        batches = zip(predictions.split(self.batch_size), self.images.split(self.batch_size), strict=True)
        found = [image_functions.image_metrics(*batch) for batch in batches]
        values = {name: torch.cat([batch[name] for batch in found]).double() for name in found[0]}
        return {name: self._mean(value) for name, value in values.items()}

    def _mean(self, values: Tensor) -> Value:
        interval = percentile_interval(lambda w: float(w @ values / w.sum()), self.counts)
        return Value(float(values.mean()), *interval, len(values))

    def _centred(self, statistic: Callable[[Tensor], float], resamples: int) -> Value:
        value = statistic(torch.ones(len(self.images), dtype=torch.float64))
        return Value(value, *centred_interval(statistic, self.counts[:resamples], value), len(self.images))


def evaluate_with_baselines(
    evaluator: Evaluator, predictions: Tensor, baselines: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The model's metrics, each beside those of the baselines (see `common.metrics.baselines`).

    Returns:
        Plain data for ``metrics.json``: ``{"extractor", "leading", "metrics": {NAME: {"mean", "interval",
        "n", "better", "baselines": {BASELINE: {"mean", "interval", "n"}}}}}``.
    """
    model = evaluator(predictions)
    beside = {name: evaluator(images) for name, images in baselines.items()}
    metrics = {
        name: {
            **value.plain(),
            "better": better(name),
            "baselines": {baseline: values[name].plain() for baseline, values in beside.items()},
        }
        for name, value in model.items()
    }
    name = evaluator.extractor.name
    return {"extractor": name, "leading": [f"fid_{name}", "lesion_faithfulness"], "metrics": metrics}


def better(name: str) -> str:
    """Whether ``higher`` or ``lower`` values of metric ``name`` are better."""
    return "higher" if image_functions.HIGHER_IS_BETTER.get(name, name == "lesion_faithfulness") else "lower"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

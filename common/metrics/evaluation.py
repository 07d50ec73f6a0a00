"""Predictions -> every metric with its interval; with baselines -> the content of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import images as image_functions
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.faithfulness import contrast_error, contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor, extract
from common.metrics.fid import fid
from common.metrics.kid import Kernels
from common.random import generator

FRECHET_RESAMPLES = 200  # of the resamples, as many are used for FID: each costs a matrix decomposition
CONTRAST_METRICS = {"faithfulness": faithfulness, "contrast_error": contrast_error}


class Evaluator:
    """Measures predictions against one set of real images. What concerns the real side is computed once.

    Args:
        images: real images (N, 1, H, W) in [-1, 1], N at least 2.
        labels: (N, C, H, W), lesion where above 0.5; None to leave out what concerns lesions.
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
        labels: Tensor | None,
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
        self.contrasts = None if labels is None else lesion_contrast(images, labels)
        self.resamples = Resamples(
            resample_counts(patients, len(images), resamples, generator(seed, "bootstrap"))
        )

    def __call__(self, predictions: Tensor) -> dict[str, Value]:
        """Every metric of predictions (N, 1, H, W) in [-1, 1], leading ones first: name -> value."""
        return {
            **self._feature_values(extract(self.extractor, predictions, self.batch_size, self.device)),
            **self._lesion_values(predictions),
            **self._image_values(predictions),
        }

    def _feature_values(self, features: Tensor) -> dict[str, Value]:
        kernels = Kernels(self.features, features)
        frechet = self.resamples.distance(
            lambda w: fid(self.features, features, w, w), FRECHET_RESAMPLES
        ).at_least(0)
        kernel = self.resamples.distance(lambda w: kernels.discrepancy(w, w))
        return {f"fid_{self.extractor.name}": frechet, f"kid_{self.extractor.name}": kernel}

    def _lesion_values(self, predictions: Tensor) -> dict[str, Value]:
        if self.labels is None or self.contrasts is None:
            return {}
        usable = ~self.contrasts.isnan()
        parts = contrast_parts(lesion_contrast(predictions, self.labels), self.contrasts)[usable]
        here = self.resamples.of(usable)
        return {f"lesion_{name}": here.ratio(parts, metric) for name, metric in CONTRAST_METRICS.items()}

    def _image_values(self, predictions: Tensor) -> dict[str, Value]:
        batches = zip(predictions.split(self.batch_size), self.images.split(self.batch_size), strict=True)
        found = [image_functions.image_metrics(*batch) for batch in batches]
        values = {name: torch.cat([batch[name] for batch in found]).double() for name in found[0]}
        return {name: self.resamples.mean(value) for name, value in values.items()}


def evaluate_with_baselines(
    evaluator: Evaluator, predictions: Tensor, baselines: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The model's metrics, each beside those of the baselines (see `common.metrics.baselines`).

    Returns:
        Plain data for ``metrics.json``: ``{"extractor", "leading", "metrics": {NAME: {"mean", "interval",
        "n", "better", "baselines": {BASELINE: {"mean", "interval", "n"}}}}}``.
    """
    beside = {name: evaluator(images) for name, images in baselines.items()}
    metrics = compared(evaluator(predictions), beside)
    leading = [name for name in metrics if name.startswith("fid_") or name.endswith("faithfulness")]
    return {"extractor": evaluator.extractor.name, "leading": leading, "metrics": metrics}


def compared(
    model: Mapping[str, Value],
    baselines: Mapping[str, Mapping[str, Value]],
    judge: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """A model's metrics, each beside those of the baselines: the ``metrics`` of `evaluate_with_baselines`.

    Args:
        judge: which values of a metric are better, by its name; `better` by default.
    """
    return {
        name: {
            **value.plain(),
            "better": (judge or better)(name),
            "baselines": {baseline: values[name].plain() for baseline, values in baselines.items()},
        }
        for name, value in model.items()
    }


def better(name: str) -> str:
    """Whether ``higher`` or ``lower`` values of metric ``name`` are better."""
    higher = image_functions.HIGHER_IS_BETTER.get(name, name.endswith("faithfulness"))
    return "higher" if higher else "lower"

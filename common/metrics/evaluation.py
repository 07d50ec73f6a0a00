"""Predictions -> every metric with its interval; with baselines -> the content of ``metrics.json``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import images as image_functions
from common.metrics.bootstrap import Resamples, Value
from common.metrics.diversity import texture_correlation
from common.metrics.excess_kid import KernelDistances, Sample, blurred
from common.metrics.faithfulness import contrast_error, contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor, extract
from common.metrics.fid import fid
from common.metrics.kid import Patients
from common.metrics.prdc import NEIGHBOURS, prdc, too_few_others
from common.random import generator

logger = logging.getLogger(__name__)
BLURRED = "blurred_real"
DIVERSITIES = ("recall", "coverage")
TEXTURE = "texture_correlation"
CONTRAST_METRICS = {"faithfulness": faithfulness, "contrast_error": contrast_error}


class Evaluator:
    """Measures predictions against one set of real images. What concerns the real side is computed once.

    Args:
        images: real images (N, 1, H, W) in [-1, 1], N at least 2.
        labels: (N, C, H, W), lesion where above 0.5; None to leave out what concerns lesions.
        extractor: for FID and KID, on ``device`` already; its name becomes part of theirs.
        patients: one id an image; None for images that are each their own patient's.
        seed: of the bootstrap.
        resamples: of the bootstrap-t.
        stand_in: real images (M, 1, H, W) of other patients, usually the baseline ``real_real``, and one id
            an image: what excess KID takes for 0. None to leave it out.
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
        stand_in: tuple[Tensor, Sequence[str]] | None = None,
    ) -> None:
        if len(images) < 2:
            raise UserError(f"{len(images)} test images are too few to evaluate; at least 2 are needed")
        self.images, self.labels, self.extractor = images, labels, extractor
        self.batch_size, self.device = batch_size, device
        self.features = extract(extractor, images, batch_size, device)
        self.contrasts = None if labels is None else lesion_contrast(images, labels)
        self.patients = [f"image {place}" for place in range(len(images))] if patients is None else patients
        self.count, self.seed = resamples, seed
        self.resamples = self._resamples(self.patients)
        if patients is None:
            self.resamples.patients = None
        self.lonely = too_few_others(self.patients, NEIGHBOURS)
        if self.lonely:
            logger.warning(self.lonely)
        here = Sample(self.features, self.patients, self.resamples)
        if stand_in is None:
            self.kernels = KernelDistances(here)
        else:
            others = Sample(self._extracted(stand_in[0]), stand_in[1], self._resamples(stand_in[1]))
            self.kernels = KernelDistances(here, others, self._extracted(blurred(images)))

    def __call__(self, predictions: Tensor, patients: Sequence[str] | None = None) -> dict[str, Value]:
        """Every metric of predictions (N, 1, H, W) in [-1, 1], leading ones first: name -> value.

        Args:
            patients: whose images they are, where they are real ones; generated images are one cluster with
                the images of the patient whose mask they were made from.
        """
        features = self._extracted(predictions)
        drawn = self.resamples if patients is None else self._resamples(patients)
        names = self.patients if patients is None else patients
        return {
            **self._distances(Sample(features, names, drawn)),
            **self._lesion_values(predictions),
            **self._diversities(features, names, drawn),
            TEXTURE: texture_correlation(predictions, names, drawn),
            **self._image_values(predictions),
        }

    def _distances(self, fake: Sample) -> dict[str, Value]:
        """FID, KID and excess KID."""
        both, split = self.resamples.beside(fake.resamples), len(self.features)
        frechet = both.distance(lambda w: fid(self.features, fake.features, w[:split], w[split:])).at_least(0)
        found = {"fid": frechet, **self.kernels(fake)}
        return {f"{name}_{self.extractor.name}": replace(value, n=split) for name, value in found.items()}

    def _diversities(self, features: Tensor, names: Patients, drawn: Resamples) -> dict[str, Value]:
        """NaN where there are too few images, or too few of other patients."""
        real, fake = self.features, features
        if self.lonely:
            return {name: self.resamples.mean(torch.full((len(real),), math.nan)) for name in DIVERSITIES}
        found = prdc(real, fake, patients=(self.patients, names)).intervals(self.resamples, drawn)
        return {name: found[name] for name in DIVERSITIES}

    def _extracted(self, images: Tensor) -> Tensor:
        return extract(self.extractor, images, self.batch_size, self.device)

    def _resamples(self, patients: Sequence[str]) -> Resamples:
        return Resamples.over(patients, len(patients), self.count, generator(self.seed, "bootstrap"))

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
    evaluator: Evaluator,
    predictions: Tensor,
    baselines: Mapping[str, Tensor],
    patients: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The model's metrics, each beside those of the baselines (see `common.metrics.baselines`).

    Args:
        patients: by baseline, one id an image, of those that are other patients' real images.
    Returns:
        Plain data for ``metrics.json``: ``{"extractor", "leading", "metrics": {NAME: {"mean", "interval",
        "n", "patients", "better", "baselines": {BASELINE: {"mean", "interval", "n", "patients"}}}}}``.
    """
    owned = patients or {}
    beside = {name: evaluator(images, owned.get(name)) for name, images in baselines.items()}
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
    """Whether ``higher`` or ``lower`` values of metric ``name`` are better, or values ``as real``."""
    if name == TEXTURE:
        return "as real"
    higher = image_functions.HIGHER_IS_BETTER.get(name, name.endswith("faithfulness") or name in DIVERSITIES)
    return "higher" if higher else "lower"

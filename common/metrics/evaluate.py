"""Predictions -> every metric with its interval; with baselines -> the content of ``metrics.json``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import image_quality as image_functions
from common.metrics.baselines import mean_image
from common.metrics.bootstrap import Resamples, Value
from common.metrics.diversity import (
    birthday,
    drawn_pairs,
    duplicate_threshold,
    feature_distances,
    log_likelihood,
    similarities,
    similarity_name,
    texture_correlation,
)
from common.metrics.faithfulness import contrast_error, contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor, extract, pattern_vectors, pixel_vectors
from common.metrics.fid import fid
from common.metrics.kid import FeatureSet, KernelDistances, Patients, gaussian_blur
from common.metrics.memorization import Nearest, nearest_training
from common.metrics.prdc import NEIGHBOURS, prdc, too_few_others
from common.rng import make_rng

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
        here = FeatureSet(self.features, self.patients, self.resamples)
        if stand_in is None:
            self.kernels = KernelDistances(here)
        else:
            others = FeatureSet(self._extracted(stand_in[0]), stand_in[1], self._resamples(stand_in[1]))
            self.kernels = KernelDistances(here, others, self._extracted(gaussian_blur(images)))

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
            **self._distances(FeatureSet(features, names, drawn)),
            **self._lesion_values(predictions),
            **self._diversities(features, names, drawn),
            TEXTURE: texture_correlation(predictions, names, drawn),
            **self._image_values(predictions),
        }

    def _distances(self, fake: FeatureSet) -> dict[str, Value]:
        """FID, KID and excess KID."""
        both, split = self.resamples.join(fake.resamples), len(self.features)
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
        return Resamples.draw(patients, len(patients), self.count, make_rng(self.seed, "bootstrap"))

    def _lesion_values(self, predictions: Tensor) -> dict[str, Value]:
        if self.labels is None or self.contrasts is None:
            return {}
        usable = ~self.contrasts.isnan()
        parts = contrast_parts(lesion_contrast(predictions, self.labels), self.contrasts)[usable]
        here = self.resamples.subset(usable)
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


HIGHER = ("precision", "recall", "density", "coverage", "log_likelihood")
AS_REAL = ("pair_ssim", "pair_ms_ssim", "pair_distance", "modes")
"""Of these the real images' value is the best: two real images are alike to a degree."""


@dataclass(frozen=True)
class RealImages:
    """The real side of an evaluation.

    Attributes:
        test: images (N, 1, H, W) in [-1, 1] of patients that the generator has not seen.
        patients: one id a test image.
        validation: (V, 1, H, W) of others that it has not seen, for the bandwidth of the log-likelihood.
        training: (T, 1, H, W) what it learned from, flips included where it saw those.
        training_patients: one id a training image.
    """

    test: Tensor
    patients: Sequence[str]
    validation: Tensor
    training: Tensor
    training_patients: Sequence[str]


@dataclass(frozen=True)
class SetMetrics:
    """What an evaluation found of one set.

    Attributes:
        values: by metric, leading ones first.
        details: what else is worth knowing, as plain data.
    """

    values: dict[str, Value]
    details: dict[str, Any]


class SetEvaluator:
    """Measures sets of images. What concerns the real side is computed once.

    Every metric depends on the number of images but for the diversities: compare sets of equal numbers.

    Args:
        real: what they are compared with; more than ``k`` test images.
        extractor: on ``device`` already; its name becomes part of FID's and KID's.
        seed: of bootstrap, pairs and baselines.
        resamples: of the bootstrap-t.
        k: neighbours, see `common.metrics.prdc.prdc`.
        features: of the test and of the training images, where they are there already.
    """

    def __init__(
        self,
        real: RealImages,
        extractor: FeatureExtractor,
        seed: int = 0,
        resamples: int = 1000,
        k: int = NEIGHBOURS,
        device: torch.device | str = "cpu",
        features: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.real, self.extractor, self.device = real, extractor, device
        self.seed, self.count, self.k = seed, resamples, k
        self.features, self.training = features or (self.extract(real.test), self.extract(real.training))
        self.threshold = duplicate_threshold(self.features)
        self.resamples = self._resamples(real.patients, len(real.test))
        lonely = too_few_others(real.patients, k)
        if lonely:
            logger.warning(lonely)
        self._kernels: dict[int, KernelDistances] = {}

    def extract(self, images: Tensor) -> Tensor:
        """Features (M, D) of images (M, 1, H, W)."""
        return extract(self.extractor, images, device=self.device)

    def __call__(
        self, images: Tensor, features: Tensor | None = None, patients: Sequence[str] | None = None
    ) -> SetMetrics:
        """Every metric of a set.

        Args:
            images: (M, 1, H, W) in [-1, 1], more than ``k``.
            features: theirs, where they are there already.
            patients: one id an image, of real ones and of slices of one generated volume; others are
                independent.
        """
        features = self.extract(images) if features is None else features
        drawn = self._resamples(patients, len(images))
        modes = birthday(features, self.threshold, self._numbers("orders"))
        held_out = pixel_vectors(self.real.validation), pixel_vectors(self.real.test)
        likelihood = log_likelihood(pixel_vectors(images), *held_out)
        values = {
            **self._likeness(images, features, patients, drawn),
            "modes": Value(modes.modes, math.nan, math.nan, len(images), drawn.patients),
            "log_likelihood": self.resamples.mean(likelihood.values),
            **self._copies(self.nearest(images, features), drawn),
        }
        return SetMetrics(values, {"modes_reached": modes.reached, "bandwidth": likelihood.bandwidth})

    def likeness(
        self, images: Tensor, features: Tensor, patients: Sequence[str] | None = None
    ) -> dict[str, Value]:
        """What says how alike the sets are, without what is asked of single images: as `__call__` has it."""
        return self._likeness(images, features, patients, self._resamples(patients, len(images)))

    def nearest(self, images: Tensor, features: Tensor) -> dict[str, Nearest]:
        """The nearest training image of each image (M, 1, H, W), by ``features`` (M, D) and by ``pixels``."""
        by_features = nearest_training(features, self.training, self.features)
        real = pattern_vectors(self.real.training), pattern_vectors(self.real.test)
        return {"features": by_features, "pixels": nearest_training(pattern_vectors(images), *real)}

    def baselines(self, count: int) -> dict[str, SetMetrics]:
        """The training images' ``mean_image``; ``real_real``: training images in the place of others;
        ``blurred_real``: the test images themselves, blurred.

        FID has no way to leave a patient's own images out: it is NaN for ``blurred_real``. Whether they are
        copies is no question of training images: there, and only there, ``real_real`` are the test images.

        Args:
            count: of generated images; as many are taken, or all where there are fewer.
        """
        mean = mean_image(self.real.training, count)
        flat = self(mean, self.extract(mean[:1]).expand(count, -1))
        order = self.stand_in(count)
        patients = [self.real.training_patients[place] for place in order]
        others = self(self.real.training[order], self.training[order], patients)
        held_out = self._copies(self.nearest(self.real.test, self.features), self.resamples)
        same = self(*self.blurred, self.real.patients)
        return {
            "mean_image": flat,
            "real_real": replace(others, values={**others.values, **held_out}),
            BLURRED: replace(same, values={**same.values, **self.no_fid(len(self.real.test))}),
        }

    def no_fid(self, count: int) -> dict[str, Value]:
        """FID where there is none."""
        return {f"fid_{self.extractor.name}": Value(math.nan, math.nan, math.nan, count)}

    def stand_in(self, count: int) -> np.ndarray:
        """Which training images stand in for ``count`` others as ``real_real``: sorted places."""
        return np.sort(self._numbers("real_real").permutation(len(self.training))[:count])

    @cached_property
    def blurred(self) -> tuple[Tensor, Tensor]:
        """The test images (N, 1, H, W), blurred, and their features (N, D)."""
        images = gaussian_blur(self.real.test)
        return images, self.extract(images)

    def _likeness(
        self, images: Tensor, features: Tensor, patients: Sequence[str] | None, drawn: Resamples
    ) -> dict[str, Value]:
        around = prdc(self.features, features, self.k, patients=(self.real.patients, patients))
        return {
            **self._distances(features, patients, drawn),
            **around.intervals(self.resamples, drawn),
            **self._diversities(images, features, patients, drawn),
        }

    def _distances(
        self, features: Tensor, patients: Sequence[str] | None, drawn: Resamples
    ) -> dict[str, Value]:
        """FID, KID and excess KID; the patients of both sets count."""
        both, split, total = self.resamples.join(drawn), len(self.features), len(features)
        found = self._kernels_of(total)(FeatureSet(features, patients, drawn))
        frechet = both.distance(lambda w: fid(self.features, features, w[:split], w[split:])).at_least(0)
        found = {"fid": frechet, **found}
        return {f"{name}_{self.extractor.name}": replace(value, n=total) for name, value in found.items()}

    def _kernels_of(self, count: int) -> KernelDistances:
        """KID and excess KID with as many training images for 0 as ``baselines`` shows for ``count``."""
        if count not in self._kernels:
            order = self.stand_in(count)
            patients = [self.real.training_patients[place] for place in order]
            others = FeatureSet(self.training[order], patients, self._resamples(patients, len(order)))
            real = FeatureSet(self.features, self.real.patients, self.resamples)
            self._kernels[count] = KernelDistances(real, others, self.blurred[1])
        return self._kernels[count]

    def _diversities(
        self, images: Tensor, features: Tensor, patients: Sequence[str] | None, drawn: Resamples
    ) -> dict[str, Value]:
        pairs = drawn_pairs(len(images), self._numbers("pairs"), patients=patients)
        return {
            f"pair_{similarity_name(min(images.shape[-2:]))}": similarities(images, pairs).interval(drawn),
            "pair_distance": feature_distances(features, pairs).interval(drawn),
        }

    def _copies(self, found: Mapping[str, Nearest], drawn: Resamples) -> dict[str, Value]:
        return {f"copies_by_{space}": each.share(drawn) for space, each in found.items()}

    def _resamples(self, patients: Sequence[str] | None, length: int) -> Resamples:
        return Resamples.draw(patients, length, self.count, self._numbers("bootstrap", length))

    def _numbers(self, *keys: int | str) -> np.random.Generator:
        return make_rng(self.seed, "set evaluation", *keys)


def evaluate_set(evaluator: SetEvaluator, images: Tensor, features: Tensor | None = None) -> dict[str, Any]:
    """The metrics of generated images (M, 1, H, W), each beside those of the baselines.

    Args:
        features: theirs, where they are there already.
    Returns:
        Plain data as of `common.metrics.evaluate.evaluate_with_baselines`, with ``details`` of each set.
    """
    model, beside = evaluator(images, features), evaluator.baselines(len(images))
    metrics = compared(model.values, {name: found.values for name, found in beside.items()}, better_set)
    details = {name: found.details for name, found in {"model": model, **beside}.items()}
    leading = [name for name in metrics if name.startswith("fid_") or name == "coverage"]
    return {"extractor": evaluator.extractor.name, "leading": leading, "metrics": metrics, "details": details}


def better_set(name: str) -> str:
    """Whether ``higher`` or ``lower`` values of metric ``name`` are better, or values ``as real``."""
    return "as real" if name in AS_REAL else "higher" if name in HIGHER else "lower"

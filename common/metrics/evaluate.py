"""Evaluates predictions, or a set of generated images, with every metric, its interval and its baselines.

`Evaluator` compares predictions with their real images pair by pair, `SetEvaluator` compares sets of images
without pairs. Both give the content of ``metrics.json``, which `metrics_table` prints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.baselines import mean_image
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.diversity import (
    birthday,
    draw_pairs,
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
from common.metrics.image_quality import image_metrics
from common.metrics.kid import FeatureSet, KernelDistances, Patients, gaussian_blur
from common.metrics.nearest_neighbors import NearestTraining, nearest_training
from common.metrics.prdc import NEIGHBOURS, prdc, too_few_others
from common.rng import make_rng

logger = logging.getLogger(__name__)

BLURRED = "blurred_real"
DIVERSITIES = ("recall", "coverage")
TEXTURE = "texture_correlation"
CONTRAST_METRICS = {"faithfulness": faithfulness, "contrast_error": contrast_error}
HIGHER = ("precision", "recall", "density", "coverage", "log_likelihood", "ssim", "ms_ssim", "psnr")
AS_REAL = (TEXTURE, "pair_ssim", "pair_ms_ssim", "pair_distance", "modes")
"""Metrics whose best value is that of real images; two real images are alike to some degree."""


def better(name: str) -> str:
    """Returns whether ``higher`` or ``lower`` values of metric ``name`` are better, or values ``as real``.

    Example:
        >>> better("fid_gridvgg"), better("lesion_faithfulness"), better("modes")
        ('lower', 'higher', 'as real')
    """
    if name in AS_REAL:
        return "as real"
    return "higher" if name in HIGHER or name.endswith("faithfulness") else "lower"


def join_metrics(model: Mapping[str, Value], baselines: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
    """Joins the metrics of a model with those of the baselines.

    Returns:
        Plain data: ``{NAME: {"mean", "interval", "n", "patients", "better", "baselines": {BASELINE: {"mean",
        "interval", "n", "patients"}}}}``.
    """
    return {
        name: {
            **value.plain(),
            "better": better(name),
            "baselines": {baseline: values[name].plain() for baseline, values in baselines.items()},
        }
        for name, value in model.items()
    }


def _distances(
    real: FeatureSet, fake: FeatureSet, kernels: KernelDistances, extractor: str, n: int
) -> dict[str, Value]:
    """FID, KID and excess KID with the patients of both sets; the extractor is part of their names."""
    both, split = real.resamples.join(fake.resamples), len(real)
    frechet = both.distance(lambda w: fid(real.features, fake.features, w[:split], w[split:])).at_least(0)
    values = {"fid": frechet, **kernels(fake)}
    return {f"{name}_{extractor}": replace(value, n=n) for name, value in values.items()}


class Evaluator:
    """Measures predictions against their real images. What concerns only real images is computed once.

    Args:
        images: real images (N, 1, H, W) in [-1, 1], N at least 2.
        labels: (N, C, H, W), lesion where above 0.5; None to leave out metrics of lesions.
        extractor: for FID and KID, on ``device`` already; its name becomes part of theirs.
        patients: one id per image; None for images that are independent.
        seed: of the bootstrap.
        resamples: of the bootstrap-t.
        stand_in: real images (M, 1, H, W) of other patients, usually the baseline ``real_real``, and one id
            per image; their excess KID is 0. None to leave excess KID out.
    Raises:
        UserError: fewer than two images.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> evaluator = Evaluator(images, None, RandomVGG(), list("aabbccdd"), resamples=20)
        >>> values = evaluator(images)
        >>> round(values["fid_randvgg"].mean, 6), values["mae"].mean
        (0.0, 0.0)
        >>> result = evaluate_with_baselines(evaluator, images, {"flipped": images.flip(-1)})
        >>> result["metrics"]["mae"]["baselines"]["flipped"]["mean"] > 0.5
        True
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
        self.count, self.seed = resamples, seed
        self.contrasts = None if labels is None else lesion_contrast(images, labels)
        ids = [f"image {index}" for index in range(len(images))] if patients is None else patients
        self.real = self._feature_set(images, ids)
        self.resamples = self.real.resamples
        if patients is None:
            self.resamples.patients = None
        self.too_few = too_few_others(ids, NEIGHBOURS)
        if self.too_few:
            logger.warning(self.too_few)
        if stand_in is None:
            self.kernels = KernelDistances(self.real)
        else:
            blurred = self._extract(gaussian_blur(images))
            self.kernels = KernelDistances(self.real, self._feature_set(*stand_in), blurred)

    def __call__(self, predictions: Tensor, patients: Sequence[str] | None = None) -> dict[str, Value]:
        """Computes every metric of predictions (N, 1, H, W) in [-1, 1], the leading ones first.

        Args:
            patients: one id per image if these are real images of other patients; generated images belong to
                the patient whose mask they were made from.
        """
        if patients is None:
            fake = replace(self.real, features=self._extract(predictions))
        else:
            fake = self._feature_set(predictions, patients)
        assert fake.patients is not None
        return {
            **_distances(self.real, fake, self.kernels, self.extractor.name, len(self.images)),
            **self._lesion_values(predictions),
            **self._diversities(fake),
            TEXTURE: texture_correlation(predictions, fake.patients, fake.resamples),
            **self._image_values(predictions),
        }

    def _extract(self, images: Tensor) -> Tensor:
        return extract(self.extractor, images, self.batch_size, self.device)

    def _feature_set(self, images: Tensor, patients: Sequence[str]) -> FeatureSet:
        drawn = Resamples.draw(patients, len(patients), self.count, make_rng(self.seed, "bootstrap"))
        return FeatureSet(self._extract(images), patients, drawn)

    def _diversities(self, fake: FeatureSet) -> dict[str, Value]:
        """Computes recall and coverage; NaN if there are too few images, or too few of other patients."""
        real = self.real
        if self.too_few:
            return {name: self.resamples.mean(torch.full((len(real),), math.nan)) for name in DIVERSITIES}
        result = prdc(real.features, fake.features, patients=(real.patients, fake.patients))
        intervals = result.intervals(real.resamples, fake.resamples)
        return {name: intervals[name] for name in DIVERSITIES}

    def _lesion_values(self, predictions: Tensor) -> dict[str, Value]:
        if self.labels is None or self.contrasts is None:
            return {}
        usable = ~self.contrasts.isnan()
        parts = contrast_parts(lesion_contrast(predictions, self.labels), self.contrasts)[usable]
        here = self.resamples.subset(usable)
        return {f"lesion_{name}": here.ratio(parts, metric) for name, metric in CONTRAST_METRICS.items()}

    def _image_values(self, predictions: Tensor) -> dict[str, Value]:
        batches = zip(predictions.split(self.batch_size), self.images.split(self.batch_size), strict=True)
        results = [image_metrics(*batch) for batch in batches]
        values = {name: torch.cat([batch[name] for batch in results]).double() for name in results[0]}
        return {name: self.resamples.mean(value) for name, value in values.items()}


def evaluate_with_baselines(
    evaluator: Evaluator,
    predictions: Tensor,
    baselines: Mapping[str, Tensor],
    patients: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Evaluates a model beside the baselines (see `common.metrics.baselines`); example in `Evaluator`.

    Args:
        patients: one id per image of each baseline that consists of other patients' real images.
    Returns:
        Plain data for ``metrics.json``: ``{"extractor", "leading", "metrics"}``, see `join_metrics`.
    """
    ids = patients or {}
    others = {name: evaluator(images, ids.get(name)) for name, images in baselines.items()}
    metrics = join_metrics(evaluator(predictions), others)
    leading = [name for name in metrics if name.startswith("fid_") or name.endswith("faithfulness")]
    return {"extractor": evaluator.extractor.name, "leading": leading, "metrics": metrics}


@dataclass(frozen=True)
class RealImages:
    """The real images of an evaluation of sets.

    Attributes:
        test: images (N, 1, H, W) in [-1, 1] of patients that the generator has not seen.
        patients: one id per test image.
        validation: (V, 1, H, W) of other unseen patients, for the bandwidth of the log-likelihood.
        training: (T, 1, H, W) what the generator was trained on, with flips if it saw flips.
        training_patients: one id per training image.
    """

    test: Tensor
    patients: Sequence[str]
    validation: Tensor
    training: Tensor
    training_patients: Sequence[str]


@dataclass(frozen=True)
class SetMetrics:
    """The metrics of one set of images.

    Attributes:
        values: by metric, the leading ones first.
        details: further facts as plain data.
    """

    values: dict[str, Value]
    details: dict[str, Any]


class SetEvaluator:
    """Measures sets of images against real ones. What concerns only real images is computed once.

    All metrics but those of pairs depend on the number of images: compare sets of equal size.

    Args:
        real: the real images; more than ``k`` test images.
        extractor: on ``device`` already; its name becomes part of FID's and KID's.
        seed: of bootstrap, pairs and baselines.
        resamples: of the bootstrap-t.
        k: neighbours, see `common.metrics.prdc.prdc`.
        features: of the test and of the training images, if they exist already.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> parts = (torch.rand(32, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1).split(8)
        >>> real = RealImages(parts[0], list("aabbccdd"), parts[1], parts[2], list("eeffgghh"))
        >>> result = evaluate_set(SetEvaluator(real, RandomVGG(), resamples=20), parts[3])
        >>> result["leading"]
        ['fid_randvgg', 'coverage']
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
        self._test = FeatureSet(self.features, real.patients, self.resamples)
        too_few = too_few_others(real.patients, k)
        if too_few:
            logger.warning(too_few)
        self._kernels: dict[int, KernelDistances] = {}

    def extract(self, images: Tensor) -> Tensor:
        """Features (M, D) of images (M, 1, H, W)."""
        return extract(self.extractor, images, device=self.device)

    def __call__(
        self, images: Tensor, features: Tensor | None = None, patients: Sequence[str] | None = None
    ) -> SetMetrics:
        """Computes every metric of a set.

        Args:
            images: (M, 1, H, W) in [-1, 1], more than ``k``.
            features: of the images, if they exist already.
            patients: one id per image for real images and for slices of generated volumes; None for
                independent images.
        """
        features = self.extract(images) if features is None else features
        drawn = self._resamples(patients, len(images))
        modes = birthday(features, self.threshold, self._rng("orders"))
        held_out = pixel_vectors(self.real.validation), pixel_vectors(self.real.test)
        likelihood, bandwidth = log_likelihood(pixel_vectors(images), *held_out)
        values = {
            **self.likeness(images, features, patients),
            "modes": Value(modes.modes, math.nan, math.nan, len(images), drawn.patients),
            "log_likelihood": self.resamples.mean(likelihood),
            **self._copies(self.nearest(images, features), drawn),
        }
        return SetMetrics(values, {"modes_reached": modes.reached, "bandwidth": bandwidth})

    def likeness(self, images: Tensor, features: Tensor, patients: Patients = None) -> dict[str, Value]:
        """Computes the metrics that compare whole sets: distances, precision to coverage, diversity of pairs.

        Args:
            images, features, patients: see `__call__`.
        """
        fake = FeatureSet(features, patients, self._resamples(patients, len(images)))
        balls = prdc(self.features, features, self.k, patients=(self.real.patients, patients))
        pairs = draw_pairs(len(images), self._rng("pairs"), patients=patients)
        similarity = f"pair_{similarity_name(min(images.shape[-2:]))}"
        kernels = self._kernels_of(len(images))
        return {
            **_distances(self._test, fake, kernels, self.extractor.name, len(images)),
            **balls.intervals(self.resamples, fake.resamples),
            similarity: similarities(images, pairs).interval(fake.resamples),
            "pair_distance": feature_distances(features, pairs).interval(fake.resamples),
        }

    def nearest(self, images: Tensor, features: Tensor) -> dict[str, NearestTraining]:
        """The nearest training image of each image (M, 1, H, W) by ``features`` (M, D) and by ``pixels``."""
        by_features = nearest_training(features, self.training, self.features)
        real = pattern_vectors(self.real.training), pattern_vectors(self.real.test)
        return {"features": by_features, "pixels": nearest_training(pattern_vectors(images), *real)}

    def baselines(self, count: int) -> dict[str, SetMetrics]:
        """Computes the metrics of the baselines.

        ``mean_image`` is the training images' mean, ``real_real`` are training images, ``blurred_real`` are
        the test images, blurred. FID cannot leave a patient's own images out and is NaN for ``blurred_real``.
        For copies, and only there, ``real_real`` are the test images: training images are copies of
        themselves.

        Args:
            count: number of generated images; baselines have the same number, or all there are.
        """
        mean = mean_image(self.real.training, count)
        flat = self(mean, self.extract(mean[:1]).expand(count, -1))
        order = self.stand_in(count)
        patients = [self.real.training_patients[index] for index in order]
        others = self(self.real.training[order], self.training[order], patients)
        held_out = self._copies(self.nearest(self.real.test, self.features), self.resamples)
        same = self(*self.blurred, self.real.patients)
        return {
            "mean_image": flat,
            "real_real": replace(others, values={**others.values, **held_out}),
            BLURRED: replace(same, values={**same.values, **self.no_fid(len(self.real.test))}),
        }

    def no_fid(self, count: int) -> dict[str, Value]:
        """Returns a FID of NaN."""
        return {f"fid_{self.extractor.name}": Value(math.nan, math.nan, math.nan, count)}

    def stand_in(self, count: int) -> np.ndarray:
        """Draws the training images that stand in for ``count`` others as ``real_real``: sorted indices."""
        return np.sort(self._rng("real_real").permutation(len(self.training))[:count])

    @cached_property
    def blurred(self) -> tuple[Tensor, Tensor]:
        """The blurred test images (N, 1, H, W) and their features (N, D)."""
        images = gaussian_blur(self.real.test)
        return images, self.extract(images)

    def _kernels_of(self, count: int) -> KernelDistances:
        """KID and excess KID, which is 0 for the ``real_real`` of `baselines` for ``count`` images."""
        if count not in self._kernels:
            order = self.stand_in(count)
            patients = [self.real.training_patients[index] for index in order]
            others = FeatureSet(self.training[order], patients, self._resamples(patients, len(order)))
            self._kernels[count] = KernelDistances(self._test, others, self.blurred[1])
        return self._kernels[count]

    def _copies(self, nearest: Mapping[str, NearestTraining], drawn: Resamples) -> dict[str, Value]:
        return {f"copies_by_{space}": each.share(drawn) for space, each in nearest.items()}

    def _resamples(self, patients: Patients, length: int) -> Resamples:
        return Resamples.draw(patients, length, self.count, self._rng("bootstrap", length))

    def _rng(self, *keys: int | str) -> np.random.Generator:
        return make_rng(self.seed, "set evaluation", *keys)


def evaluate_set(evaluator: SetEvaluator, images: Tensor, features: Tensor | None = None) -> dict[str, Any]:
    """Evaluates generated images (M, 1, H, W) beside the baselines; example in `SetEvaluator`.

    Args:
        features: of the images, if they exist already.
    Returns:
        Plain data like that of `evaluate_with_baselines`, with ``details`` of each set.
    """
    model, others = evaluator(images, features), evaluator.baselines(len(images))
    metrics = join_metrics(model.values, {name: result.values for name, result in others.items()})
    details = {name: result.details for name, result in {"model": model, **others}.items()}
    leading = [name for name in metrics if name.startswith("fid_") or name == "coverage"]
    return {"extractor": evaluator.extractor.name, "leading": leading, "metrics": metrics, "details": details}


BASELINES = ("nearest_mask", "mean_image")  # the baselines in the table of structures
ARROWS = {"higher": "higher is better", "lower": "lower is better", "as real": "best as real-real"}


def metrics_table(result: Mapping[str, Any]) -> str:
    """Formats the result of `common.metrics.evaluate.evaluate_with_baselines`, one metric per line.

    ``*`` marks the leading metrics.

    Example:
        >>> value = {"mean": 1.5, "interval": [1.0, 2.0], "n": 20, "patients": 12}
        >>> metrics = {"fid_x": {**value, "better": "lower", "baselines": {"mean_image": value}}}
        >>> print(metrics_table({"metrics": metrics, "leading": ["fid_x"]}))
        metric   model [95 % interval]  mean-image   n  patients
        -------------------------------------------------------------------------
        fid_x *   1.500 [1.000, 2.000]       1.500  20        12  lower is better
    """
    metrics: Mapping[str, Any] = result["metrics"]
    baselines = list(next(iter(metrics.values()))["baselines"]) if metrics else []
    titles = [name.replace("_", "-") for name in baselines]
    head = ["metric", "model [95 % interval]", *titles, "n", "patients", ""]
    rows = [head, *(_row(name, metrics[name], baselines, result["leading"]) for name in metrics)]
    return "\n".join([format_table(rows), *patients_warning(metrics)])


def patients_warning(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warns in one line if metrics (plain values by name) rest on few patients."""
    known = [metric["patients"] for metric in metrics.values() if metric.get("patients")]
    warning = few_patients(min(known, default=None))
    return [] if warning is None else [f"warning: {warning}"]


def structures_table(structures: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the structures of `common.metrics.structure_metrics.structures_with_baselines`, one per line.

    Each cell is the model's value with those of the baselines in brackets.
    """
    first = next(iter(structures.values()), {})
    names = [name for name in first if name != "contrast_error"]
    shown = [name for name in BASELINES if any(name in first[metric]["baselines"] for metric in names)]
    rows = [["structure", *(f"{name} {first[name]['better']}" for name in names), "n"]]
    for structure, metrics in structures.items():
        cells = [_with_baselines(metrics[name], shown) for name in names]
        rows.append([structure, *cells, str(metrics["mse"]["n"])])
    note = ", ".join(name.replace("_", "-") for name in shown)
    return f"{format_table(rows)}\nmodel ({note}); n slices; higher or lower is better"


def format_number(value: float | None) -> str:
    """Formats a number with up to four significant digits, ``-`` for None.

    Example:
        >>> format_number(0.12345), format_number(123.45), format_number(None)
        ('0.123', '123.5', '-')
    """
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def format_interval(metric: Mapping[str, Any]) -> str:
    """Formats a plain value, with a dash for a missing interval.

    Example:
        >>> format_interval({"mean": 0.5, "interval": [0.4, 0.6]})
        '0.500 [0.400, 0.600]'
    """
    if metric["interval"] is None:
        return f"{format_number(metric['mean'])} [-]"
    low, high = metric["interval"]
    return f"{format_number(metric['mean'])} [{format_number(low)}, {format_number(high)}]"


def _row(name: str, metric: Mapping[str, Any], baselines: Sequence[str], leading: Sequence[str]) -> list[str]:
    return [
        name + (" *" if name in leading else ""),
        format_interval(metric),
        *(format_number(metric["baselines"][baseline]["mean"]) for baseline in baselines),
        str(metric["n"]),
        "-" if metric.get("patients") is None else str(metric["patients"]),
        ARROWS[metric["better"]],
    ]


def _with_baselines(metric: Mapping[str, Any], baselines: Sequence[str]) -> str:
    values = ", ".join(format_number(metric["baselines"][baseline]["mean"]) for baseline in baselines)
    return f"{format_number(metric['mean'])} ({values})"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns rows of cells, the first a header above a rule; outer columns left, others right.

    Example:
        >>> print(format_table([["metric", "model", ""], ["fid", "1.5", "lower"]]))
        metric  model
        --------------------
        fid       1.5  lower
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [
        "  ".join(
            cell.ljust(width) if index in (0, len(widths) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], rule, *lines[1:]])

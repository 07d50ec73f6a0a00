"""Every measure of fidelity and diversity of a set of images against the held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.metrics.baselines import mean_image
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.features import FeatureExtractor
from common.metrics.inception_score import Classifier, class_probabilities, score_with_interval
from common.metrics.prdc import NEIGHBOURS
from common.metrics.set_evaluation import RealImages, SetEvaluator
from common.random import generator
from common.trust.extrapolation import Extrapolation, fid_infinity
from common.trust.sets import Sets

REAL_REAL, MEAN_IMAGE = "real_real", "mean_image"


@dataclass(frozen=True)
class Measured:
    """What was measured of one set.

    Attributes:
        values: by metric.
        line: of the extrapolation; None for very few images.
    """

    values: Mapping[str, Value]
    line: Extrapolation | None


class SetMeasures:
    """Measures sets against the held-out images, whose side is computed once.

    Args:
        sets: what the report is about.
        extractor, classifier: on ``device`` already.
        seed, resamples: of the bootstrap and all drawn numbers.

    Attributes:
        k: neighbours of precision, recall, density and coverage; fewer than usual for very few images.
    """

    def __init__(
        self,
        sets: Sets,
        extractor: FeatureExtractor,
        seed: int,
        resamples: int,
        classifier: Classifier | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        real, heldout = sets.real, sets.heldout
        sides = RealImages(heldout.images, heldout.patients, heldout.images, real.images, real.patients)
        self.k = min(NEIGHBOURS, min(len(real), len(heldout), len(sets.synthetic)) - 1)
        self.evaluator = SetEvaluator(sides, extractor, seed, resamples, self.k, device)
        self.sets, self.seed, self.count = sets, seed, resamples
        self.classifier, self.device = classifier, device

    def __call__(
        self, images: Tensor, features: Tensor | None = None, patients: Sequence[str] | None = None
    ) -> Measured:
        """Measures images (M, 1, S, S) of which features (M, D) and, of real ones, patients may be known."""
        features = self.evaluator.extract(images) if features is None else features
        drawn = self._resamples(patients, len(images))
        both = self.evaluator.resamples.beside(drawn)
        line = fid_infinity(self.evaluator.features, features, both, self.seed)
        name = self.evaluator.extractor.name
        found = self.evaluator.likeness(images, features, patients)
        values = {
            f"fid_{name}": found.pop(f"fid_{name}"),
            **({} if line is None else {f"fid_infinity_{name}": line.value}),
            **found,
            **self._score(images, drawn),
        }
        return Measured(values, line)

    def baselines(self, count: int) -> dict[str, Measured]:
        """``real_real``: real images in the place of ``count`` synthetic ones (all where there are fewer);
        ``mean_image``: the real images' mean, as often."""
        order = np.sort(generator(self.seed, "trust", "real_real").permutation(len(self.sets.real))[:count])
        taken = self.sets.real.chosen(order.tolist())
        mean = mean_image(self.sets.real.images, count)
        return {
            REAL_REAL: self(taken.images, self.evaluator.training[order], taken.patients),
            MEAN_IMAGE: self(mean, self.evaluator.extract(mean[:1]).expand(count, -1)),
        }

    def _score(self, images: Tensor, drawn: Resamples) -> dict[str, Value]:
        if self.classifier is None:
            return {}
        probabilities = class_probabilities(self.classifier, images, device=self.device)
        return {f"is_{self.classifier.name}": score_with_interval(probabilities, drawn)}

    def _resamples(self, patients: Sequence[str] | None, length: int) -> Resamples:
        numbers = generator(self.seed, "trust", "fidelity", length)
        return Resamples(resample_counts(patients, length, self.count, numbers))

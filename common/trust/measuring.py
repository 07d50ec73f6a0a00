"""Every measure of fidelity and diversity of a set of images against the held-out ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.baselines import mean_image
from common.metrics.bootstrap import Resamples, Value
from common.metrics.evaluation import BLURRED
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
        seed, resamples: of all drawn numbers, and of the bootstrap-t.

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
        fewest = min(others(part.patients) for part in (real, heldout))
        self.k = max(1, min(NEIGHBOURS, fewest, len(sets.synthetic) - 1))
        self.evaluator = SetEvaluator(sides, extractor, seed, resamples, self.k, device)
        self.sets, self.seed, self.count = sets, seed, resamples
        self.classifier, self.device = classifier, device

    def __call__(
        self, images: Tensor, features: Tensor | None = None, patients: Sequence[str] | None = None
    ) -> Measured:
        """Measures images (M, 1, S, S) of which features (M, D) may be known, and whose they are: patients of
        real ones, volumes of generated slices."""
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
        ``mean_image``: the real images' mean, as often; ``blurred_real``: the held-out images, blurred. FID
        cannot leave a patient's own images out: the blurred ones have none."""
        order = self.evaluator.stand_in(count)
        taken = self.sets.real.chosen(order.tolist())
        mean = mean_image(self.sets.real.images, count)
        return {
            REAL_REAL: self(taken.images, self.evaluator.training[order], taken.patients),
            MEAN_IMAGE: self(mean, self.evaluator.extract(mean[:1]).expand(count, -1)),
            BLURRED: Measured(self._blurred(), None),
        }

    def _blurred(self) -> dict[str, Value]:
        """The held-out images, blurred, in the place of synthetic ones."""
        (images, features), patients = self.evaluator.blurred, self.sets.heldout.patients
        drawn = self._resamples(patients, len(images))
        found = self.evaluator.likeness(images, features, patients)
        return {**found, **self.evaluator.no_fid(len(images)), **self._score(images, drawn)}

    def _score(self, images: Tensor, drawn: Resamples) -> dict[str, Value]:
        if self.classifier is None:
            return {}
        probabilities = class_probabilities(self.classifier, images, device=self.device)
        return {f"is_{self.classifier.name}": score_with_interval(probabilities, drawn)}

    def _resamples(self, patients: Sequence[str] | None, length: int) -> Resamples:
        numbers = generator(self.seed, "trust", "fidelity", length)
        return Resamples.over(patients, length, self.count, numbers)


def others(patients: Sequence[str]) -> int:
    """How many images of other patients each image has beside it at least."""
    return len(patients) - max(Counter(patients).values(), default=0)

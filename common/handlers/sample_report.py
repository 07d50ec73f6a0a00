"""What ``evaluating`` leaves of a generator of noise: metrics beside their baselines, galleries, curves."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.images import ImageDataset
from common.errors import UserError
from common.handlers.collected import CollectedReport
from common.handlers.galleries import save_galleries
from common.metrics.epoch_curves import epoch_plot
from common.metrics.features import FeatureExtractor
from common.metrics.memorisation import save_nearest
from common.metrics.prdc import NEIGHBOURS
from common.metrics.report import metrics_table
from common.metrics.set_evaluation import RealImages, SetEvaluator, evaluate_set

SHOWN = 36  # of each gallery
SHOWN_OF_CLASS = 12
BESIDE = 8  # samples shown beside their nearest training images

logger = logging.getLogger(__name__)


class SampleReport(CollectedReport):
    """Collects an evaluator's images of noise; at the end writes metrics and pictures and prints the table.

    ``metrics.json`` holds every metric of `common.metrics.set_evaluation.SetEvaluator` beside its baselines,
    and those of each class under ``apart`` where the generator takes one. Beside it lie ``galleries.png``
    (real and generated images, paper C's figures 4, 5 and 8), ``classes.png`` (generated images of each),
    ``nearest.png`` (samples beside their nearest training images), ``epochs.png`` (losses and accuracy by
    epoch, figures 6 and 7) and ``convergence.png`` (all that was logged, by iteration).

    Args:
        test: images of patients that the generator has not seen.
        validation: of others that it has not seen.
        train: those that it learned from.
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        extractor: for everything that rests on features.
        classes: of the samples, in order; None for an unconditional generator.
        losses: the training log (CSV); its plots are left out where there is none.
        facts: put into ``metrics.json`` as they are (model, data, seed).
        seed: of bootstrap and baselines.
        resamples: number of bootstrap resamples.
        split: what ``test`` is called.
    Raises:
        UserError: too few images.
    """

    def __init__(
        self,
        test: ImageDataset,
        validation: ImageDataset,
        train: ImageDataset,
        folder: str | os.PathLike[str],
        extractor: FeatureExtractor,
        classes: Sequence[int] | None = None,
        losses: str | os.PathLike[str] | None = None,
        facts: Mapping[str, Any] | None = None,
        seed: int = 0,
        resamples: int = 1000,
        split: str = "test",
    ) -> None:
        super().__init__(folder, losses, facts)
        if len(test) <= NEIGHBOURS:
            raise UserError(f"{len(test)} test images are too few to evaluate; at least 6 are needed")
        self.test, self.validation, self.train = test, validation, train
        self.classes = None if classes is None else np.asarray(classes)
        self.extractor, self.seed, self.resamples, self.split = extractor, seed, resamples, split

    def evaluate(self, predictions: Tensor) -> dict[str, Any]:
        """The whole set's result, with the classes' under ``apart``."""
        if len(predictions) <= NEIGHBOURS:
            raise UserError(f"num_samples {len(predictions)} is too few to evaluate; at least 6 are needed")
        everything = [np.arange(len(part)) for part in self._parts]
        evaluator = self._evaluator(everything)
        features = evaluator.extract(predictions)
        whole = self._result(self.split, evaluator, predictions, features)
        apart = {} if self.classes is None else self._apart(evaluator, predictions, features)
        self._pictures(evaluator, predictions, features)
        return {**whole, "apart": apart}

    def plot(self, losses: Path) -> None:
        """Draws the training log by iteration and by epoch."""
        super().plot(losses)
        epoch_plot(losses, self.folder / "epochs.png")

    def _result(
        self, name: str, evaluator: SetEvaluator, predictions: Tensor, features: Tensor
    ) -> dict[str, Any]:
        result = evaluate_set(evaluator, predictions, features)
        counts = f"{len(evaluator.features)} images, {len(predictions)} generated"
        print(f"\n{name}: {counts}\n{metrics_table(result)}")
        return {"split": name, **result}

    def _apart(self, whole: SetEvaluator, predictions: Tensor, features: Tensor) -> dict[str, Any]:
        """Each class's result; one of too few images is left out, said in one line."""
        results = {}
        for index, name in enumerate(self.train.class_names):
            places = [np.flatnonzero(part.classes == index) for part in self._parts]
            chosen = torch.from_numpy(np.flatnonzero(self.classes == index))
            fewest = min(len(places[0]), len(places[2]), len(chosen))
            if fewest <= NEIGHBOURS or not len(places[1]):
                logger.info("class %s: %d images are too few for metrics of its own", name, fewest)
                continue
            known = whole.features[places[0]], whole.training[places[2]]
            evaluator = self._evaluator(places, known)
            results[name] = self._result(name, evaluator, predictions[chosen], features[chosen])
        return results

    def _evaluator(
        self, places: Sequence[np.ndarray], features: tuple[Tensor, Tensor] | None = None
    ) -> SetEvaluator:
        """For the images at these places of the three parts."""
        images = [torch.from_numpy(part.images[at]) for part, at in zip(self._parts, places, strict=True)]
        patients = [
            [part.samples[place].unit for place in at]
            for part, at in zip(self._parts, places, strict=True)
        ]
        real = RealImages(images[0], patients[0], images[1], images[2], patients[2])
        return SetEvaluator(real, self.extractor, self.seed, self.resamples, features=features)

    @property
    def _parts(self) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
        return self.test, self.validation, self.train

    def _pictures(self, evaluator: SetEvaluator, predictions: Tensor, features: Tensor) -> None:
        galleries = {"real": self._shown_real(), "generated": predictions[:SHOWN]}
        save_galleries(self.folder / "galleries.png", galleries)
        if self.classes is not None:
            save_galleries(self.folder / "classes.png", self._of_classes(predictions), columns=3)
        shown = predictions[:BESIDE]
        nearest = evaluator.nearest(shown, features[:BESIDE])
        save_nearest(self.folder / "nearest.png", shown, evaluator.real.training, nearest)

    def _shown_real(self) -> Tensor:
        """Test images spread evenly over the set, none of them with its flip."""
        names = [sample.name for sample in self.test.samples]
        single = np.sort(np.unique(names, return_index=True)[1])
        chosen = np.linspace(0, len(single) - 1, min(SHOWN, len(single))).round().astype(int)
        return torch.from_numpy(self.test.images[single[chosen]])

    def _of_classes(self, predictions: Tensor) -> dict[str, Tensor]:
        """The first generated images of each class that there are any of."""
        found = {
            name: predictions[torch.from_numpy(np.flatnonzero(self.classes == index)[:SHOWN_OF_CLASS])]
            for index, name in enumerate(self.train.class_names)
        }
        return {name: images for name, images in found.items() if len(images)}

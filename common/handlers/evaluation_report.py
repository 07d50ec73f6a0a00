"""Evaluation reports: metrics with their baselines, panels and galleries, for masks and for noise."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from common.data.datasets import ImageDataset
from common.data.labels import is_condition_image
from common.data.samples import Sample
from common.errors import UserError
from common.files import write_json
from common.handlers.image_logging import save_galleries
from common.metrics.baselines import baseline_predictions, baseline_sources
from common.metrics.evaluate import (
    BLURRED,
    Evaluator,
    RealImages,
    SetEvaluator,
    evaluate_set,
    evaluate_with_baselines,
    metrics_table,
    structures_table,
)
from common.metrics.features import FeatureExtractor
from common.metrics.kid import gaussian_blur
from common.metrics.nearest_neighbors import save_nearest
from common.metrics.prdc import NEIGHBOURS
from common.metrics.structure_metrics import StructureEvaluator, structures_with_baselines
from common.visualization import convergence_plot, epoch_plot, panel_rows, save_panel, save_structure_panel


class CollectedReport(ABC):
    """Base class: collects an evaluator's predictions and writes ``metrics.json`` when its pass is complete.

    Args:
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        losses: the training log (CSV); without it there are no plots of it.
        facts: copied into ``metrics.json`` (model, data, seed).

    Attributes:
        result: the content of ``metrics.json``; empty before the end of the pass.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        losses: str | os.PathLike[str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.facts = Path(folder), dict(facts or {})
        self.losses = Path(losses) if losses else None
        self.result: dict[str, Any] = {}
        self._predictions: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Collects every iteration's predictions and reports when the pass is complete."""
        engine.add_event_handler(Events.STARTED, self._predictions.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._report)

    @abstractmethod
    def evaluate(self, predictions: Tensor) -> dict[str, Any]:
        """Evaluates all predictions (N, 1, S, S) in [-1, 1], writes pictures, prints tables.

        Returns:
            the content of ``metrics.json`` after the facts.
        """

    def plot(self, losses: Path) -> None:
        """Draws the training log."""
        convergence_plot(losses, self.folder / "convergence.png")

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        # Channel 0 is the image; others (a label map) follow.
        self._predictions += [torch.as_tensor(item["pred"])[:1].float().cpu() for item in state.output]

    def _report(self) -> None:
        self.result = {**self.facts, **self.evaluate(torch.stack(self._predictions))}
        write_json(self.folder / "metrics.json", self.result)
        if self.losses is not None and self.losses.is_file():
            self.plot(self.losses)
        print(f"\nwritten to {self.folder}")


PANEL_ROWS = 8
REAL_REAL = "real_real"


class Pairs(Protocol):
    """A dataset of pairs, such as `common.data.datasets.PairDataset` and `common.data.datasets.SliceDataset`.

    ``images`` and ``labels`` are float32 (N, 1, S, S) and may be read again at each access.
    """

    samples: list[Sample]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...

    @property
    def images(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray | None: ...


class EvaluationReport(CollectedReport):
    """Report on images of masks: ``metrics.json``, panels and printed tables.

    The first part is the result; further parts (sources reported separately) are under ``apart``. If labels
    are condition images in [-1, 1], metrics of masks are left out.

    Args:
        parts: the pairs by the split's name; the evaluator runs over them in this order.
        train: the training pairs, for the baselines.
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        extractor: for FID and KID.
        losses: the training log (CSV); without it there is no plot of it.
        facts: copied into ``metrics.json`` (model, data, seed).
        seed: of bootstrap and baselines.
        structures: names of the labels' classes, ``structures[k - 1]`` for index k: faithfulness is then that
            of the structures, each with its own metrics and a row in ``panel_structures.png``.
        resamples: number of bootstrap resamples.
    """

    def __init__(
        self,
        parts: Mapping[str, Pairs],
        train: Pairs,
        folder: str | os.PathLike[str],
        extractor: FeatureExtractor,
        losses: str | os.PathLike[str] | None = None,
        facts: Mapping[str, Any] | None = None,
        seed: int = 0,
        structures: Sequence[str] | None = None,
        resamples: int = 1000,
    ) -> None:
        if any("label" not in part[0] for part in (*parts.values(), train)):
            raise UserError("evaluating needs masks for the test and the training slices")
        super().__init__(folder, losses, facts)
        self.parts, self.train, self.extractor = dict(parts), train, extractor
        self.structures, self.seed, self.resamples = list(structures or []), seed, resamples

    def evaluate(self, predictions: Tensor) -> dict[str, Any]:
        """Returns the first part's result, with the others' under ``apart``."""
        generated = predictions.split([len(part) for part in self.parts.values()])  # (N, 1, S, S) each
        train = _tensors(self.train)
        results = {}
        for (name, part), images in zip(self.parts.items(), generated, strict=True):
            real, labels = _tensors(part)
            results[name] = {"split": name, **self._metrics(part, images, real, labels, train)}
            self._panels(name, part, images, real, labels)
            print(f"\n{name}: {len(part)} slices\n{metrics_table(results[name])}")
            if "structures" in results[name]:
                print(f"\n{structures_table(results[name]['structures'])}")
        first, *others = results
        return {**results[first], "apart": {name: results[name] for name in others}}

    def _metrics(
        self, part: Pairs, generated: Tensor, real: Tensor, labels: Tensor, train: tuple[Tensor, Tensor]
    ) -> dict[str, Any]:
        patients = [sample.unit for sample in part.samples]
        train_patients = [sample.unit for sample in self.train.samples]
        sources = baseline_sources(train[1], train_patients, labels, patients, self.seed)
        baselines = baseline_predictions(*train, train_patients, labels, patients, self.seed, sources)
        owners = {name: [train_patients[index] for index in indices] for name, indices in sources.items()}
        baselines[BLURRED] = gaussian_blur(real)
        masks = not is_condition_image(labels)
        lesions = labels if masks and not self.structures else None
        settings = (patients, self.seed, self.resamples)
        stand_in = baselines[REAL_REAL], owners[REAL_REAL]
        result = evaluate_with_baselines(
            Evaluator(real, lesions, self.extractor, *settings, stand_in=stand_in),
            generated,
            baselines,
            owners,
        )
        if not (masks and self.structures):
            return result
        inside = StructureEvaluator(real, labels, self.structures, self.extractor, *settings)
        return with_structures(result, structures_with_baselines(inside, generated, baselines))

    def _panels(self, name: str, part: Pairs, generated: Tensor, real: Tensor, labels: Tensor) -> None:
        suffix = "" if name == next(iter(self.parts)) else f"_{name}"
        names = [sample.name for sample in part.samples]
        rows = panel_rows(labels, PANEL_ROWS)
        chosen = [names[row] for row in rows]
        panel = self.folder / f"panel{suffix}.png"
        save_panel(panel, labels[rows], generated[rows], real[rows], chosen, self.structures)
        if self.structures and not is_condition_image(labels):
            panel = self.folder / f"panel_structures{suffix}.png"
            save_structure_panel(panel, labels, generated, real, names, self.structures)


def with_structures(result: Mapping[str, Any], inside: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the metrics inside structures to the result of whole images."""
    return {
        **result,
        "leading": [*result["leading"], *inside["metrics"]],
        "metrics": {**result["metrics"], **inside["metrics"]},
        "structures": inside["structures"],
    }


def _tensors(dataset: Pairs) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(dataset.images), torch.as_tensor(dataset.labels)


SHOWN = 36  # images of a gallery
SHOWN_OF_CLASS = 12
BESIDE = 8  # samples with their nearest training images

logger = logging.getLogger(__name__)


class SampleReport(CollectedReport):
    """Report on images of noise: ``metrics.json``, pictures and the printed table.

    ``metrics.json`` holds every metric of `common.metrics.evaluate.SetEvaluator` with its baselines, and
    those of each class of a conditional generator under ``apart``. The pictures are ``galleries.png`` (real
    and generated images, like figures 4, 5 and 8 of Gubbi), ``classes.png`` (generated images of each class),
    ``nearest.png`` (samples with their nearest training images), ``epochs.png`` (losses and accuracy by
    epoch, figures 6 and 7) and ``convergence.png`` (everything logged, by iteration).

    Args:
        test: images of patients that the generator has not seen.
        validation: images of other patients that it has not seen.
        train: its training images.
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        extractor: of the features.
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
        """Returns the whole set's result, with the classes' under ``apart``."""
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
        """Returns each class's result; a class of too few images is left out with one line in the log."""
        results = {}
        for index, name in enumerate(self.train.class_names):
            indices = [np.flatnonzero(part.classes == index) for part in self._parts]
            chosen = torch.from_numpy(np.flatnonzero(self.classes == index))
            fewest = min(len(indices[0]), len(indices[2]), len(chosen))
            if fewest <= NEIGHBOURS or not len(indices[1]):
                logger.info("class %s: %d images are too few for metrics of its own", name, fewest)
                continue
            known = whole.features[indices[0]], whole.training[indices[2]]
            evaluator = self._evaluator(indices, known)
            results[name] = self._result(name, evaluator, predictions[chosen], features[chosen])
        return results

    def _evaluator(
        self, indices: Sequence[np.ndarray], features: tuple[Tensor, Tensor] | None = None
    ) -> SetEvaluator:
        """Makes the evaluator of the images at these indices of the three parts."""
        images = [torch.from_numpy(part.images[at]) for part, at in zip(self._parts, indices, strict=True)]
        patients = [
            [part.samples[index].unit for index in at] for part, at in zip(self._parts, indices, strict=True)
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
        """Returns test images spread evenly over the set, none of them together with its flip."""
        names = [sample.name for sample in self.test.samples]
        single = np.sort(np.unique(names, return_index=True)[1])
        chosen = np.linspace(0, len(single) - 1, min(SHOWN, len(single))).round().astype(int)
        return torch.from_numpy(self.test.images[single[chosen]])

    def _of_classes(self, predictions: Tensor) -> dict[str, Tensor]:
        """Returns the first generated images of each class that has any."""
        galleries = {
            name: predictions[torch.from_numpy(np.flatnonzero(self.classes == index)[:SHOWN_OF_CLASS])]
            for index, name in enumerate(self.train.class_names)
        }
        return {name: images for name, images in galleries.items() if len(images)}

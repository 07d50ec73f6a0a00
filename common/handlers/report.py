"""What ``evaluating`` leaves of pairs: metrics with their baselines, tables, panels, the losses' course."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from common.data.samples import Sample
from common.errors import UserError
from common.handlers.collected import CollectedReport
from common.metrics.baselines import baseline_predictions, baseline_sources
from common.metrics.evaluation import BLURRED, Evaluator, evaluate_with_baselines
from common.metrics.excess_kid import blurred
from common.metrics.features import FeatureExtractor
from common.metrics.labels import is_condition_image
from common.metrics.panel import save_panel, save_structure_panel
from common.metrics.report import metrics_table, structures_table
from common.metrics.rows import panel_rows
from common.metrics.structures import StructureEvaluator, structures_with_baselines

PANEL_ROWS = 8
REAL_REAL = "real_real"


class Pairs(Protocol):
    """A data set as `common.data.pairs.PairDataset` and `common.data.slices.SliceDataset` are.

    ``images`` and ``labels`` are float32 (N, 1, S, S); they may be gathered anew at each access.
    """

    samples: list[Sample]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...

    @property
    def images(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray | None: ...


class EvaluationReport(CollectedReport):
    """Collects an evaluator's predictions; at the end writes ``metrics.json``, panels and prints the tables.

    The first part is the result; further parts (sources that are reported apart) stand under ``apart``.
    Where labels are condition images in [-1, 1], all that rests on masks is left out.

    Args:
        parts: the pairs by the split's name; the evaluator runs over them in this order.
        train: the training pairs, for the baselines.
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        extractor: for FID and KID.
        losses: the training log (CSV); its plot is left out where there is none.
        facts: put into ``metrics.json`` as they are (model, data, seed).
        seed: of bootstrap and baselines.
        structures: names of the labels' classes, ``structures[k - 1]`` for index k: then faithfulness is that
            of the structures, and each has its own metrics and a row in ``panel_structures.png``.
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
        """The first part's result, with the others' under ``apart``."""
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
        owners = {name: [train_patients[place] for place in places] for name, places in sources.items()}
        baselines[BLURRED] = blurred(real)
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
    """The whole images' result with what was found inside structures; its mean faithfulness leads, too."""
    return {
        **result,
        "leading": [*result["leading"], *inside["metrics"]],
        "metrics": {**result["metrics"], **inside["metrics"]},
        "structures": inside["structures"],
    }


def _tensors(dataset: Pairs) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(dataset.images), torch.as_tensor(dataset.labels)

"""What ``evaluating`` leaves behind: metrics with their baselines, a table, a panel, the losses' course."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from common.data.pairs import PairDataset
from common.errors import UserError
from common.files import write_json
from common.metrics.baselines import baseline_predictions
from common.metrics.curves import convergence_plot
from common.metrics.evaluation import Evaluator, evaluate_with_baselines
from common.metrics.features import FeatureExtractor
from common.metrics.panel import save_panel
from common.metrics.report import metrics_table

PANEL_ROWS = 8


class EvaluationReport:
    """Collects an evaluator's predictions; at the end writes ``metrics.json``, panels and prints the tables.

    The first part is the result; further parts (sources that are reported apart) stand under ``apart``.

    Args:
        parts: the pairs by the split's name; the evaluator runs over them in this order.
        train: the training pairs, for the baselines.
        folder: for the files, usually ``OUTPUT_DIR/eval``.
        extractor: for FID and KID.
        losses: the training log (CSV); its plot is left out where there is none.
        facts: put into ``metrics.json`` as they are (model, data, seed).
        seed: of bootstrap and baselines.
    """

    def __init__(
        self,
        parts: Mapping[str, PairDataset],
        train: PairDataset,
        folder: str | os.PathLike[str],
        extractor: FeatureExtractor,
        losses: str | os.PathLike[str] | None = None,
        facts: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if any(part.labels is None for part in (*parts.values(), train)):
            raise UserError("evaluating needs masks for the test and the training slices")
        self.parts, self.train, self.folder, self.extractor = dict(parts), train, Path(folder), extractor
        self.facts, self.seed = dict(facts or {}), seed
        self.losses = Path(losses) if losses else None
        self.result: dict[str, Any] = {}
        self._predictions: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Takes every iteration's predictions, reports when the pass is complete."""
        engine.add_event_handler(Events.STARTED, self._predictions.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        self._predictions += [torch.as_tensor(item["pred"]).float().cpu() for item in state.output]

    def _report(self) -> None:
        lengths = [len(part) for part in self.parts.values()]
        generated = torch.stack(self._predictions).split(lengths)  # (N, 1, S, S) each
        results = {}
        for (name, part), images in zip(self.parts.items(), generated, strict=True):
            results[name] = {"split": name, **self._metrics(part, images)}
            self._panel(name, part, images)
            print(f"\n{name}: {len(part)} slices\n{metrics_table(results[name])}")
        first, *others = results
        self.result = {**self.facts, **results[first], "apart": {name: results[name] for name in others}}
        write_json(self.folder / "metrics.json", self.result)
        if self.losses is not None and self.losses.is_file():
            convergence_plot(self.losses, self.folder / "convergence.png")
        print(f"\nwritten to {self.folder}")

    def _metrics(self, part: PairDataset, generated: Tensor) -> dict[str, Any]:
        images, labels = _tensors(part)
        train_images, train_labels = _tensors(self.train)
        patients = [sample.patient for sample in part.samples]
        train_patients = [sample.patient for sample in self.train.samples]
        evaluator = Evaluator(images, labels, self.extractor, patients, self.seed)
        baselines = baseline_predictions(
            train_images, train_labels, train_patients, labels, patients, self.seed
        )
        return evaluate_with_baselines(evaluator, generated, baselines)

    def _panel(self, name: str, part: PairDataset, generated: Tensor) -> None:
        images, labels = _tensors(part)
        rows = panel_rows(labels, PANEL_ROWS)
        names = [part.samples[row].name for row in rows]
        path = self.folder / ("panel.png" if name == next(iter(self.parts)) else f"panel_{name}.png")
        save_panel(path, labels[rows], generated[rows], images[rows], names)


def panel_rows(labels: Tensor, count: int) -> list[int]:
    """Positions of ``count`` slices spread evenly over the sizes of their lesions, largest first."""
    order = labels.flatten(1).sum(1).argsort(descending=True, stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(row) for row in order[places]]


def _tensors(dataset: PairDataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.images), torch.from_numpy(dataset.labels)

"""Metrics of a classifier's logits, for validation during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.classification import balanced_accuracy, macro_area
from common.metrics.ignite_metrics import as_given
from common.training import distributed

Output = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def logits_and_classes(output: Output) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: logits (B, K) and classes (B,), decollated or not."""
    items = [output] if isinstance(output, Mapping) else list(output)
    logits = torch.cat([torch.as_tensor(item["pred"]).reshape(-1, item["pred"].shape[-1]) for item in items])
    return logits, torch.cat([torch.as_tensor(item["label"]).reshape(-1) for item in items])


def balanced(probabilities: NDArray, classes: NDArray) -> float:
    """`balanced_accuracy` of the likeliest classes."""
    return balanced_accuracy(probabilities.argmax(1), classes, probabilities.shape[1])


class OfAllSamples(Metric):
    """A function (probabilities (N, K), classes (N,)) -> number of all samples of a pass. Higher is better.

    Args:
        function: `macro_area` (AUC) by default, or `balanced`.
        output_transform: engine output -> (logits (B, K), classes (B,)).
    """

    def __init__(
        self,
        function: Callable[[NDArray, NDArray], float] = macro_area,
        output_transform: Callable[[Any], Any] = as_given,
    ) -> None:
        self.function = function
        super().__init__(output_transform, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.rows: list[NDArray] = []

    def update(self, output: Any) -> None:
        """Adds a batch."""
        logits, classes = output
        probabilities = logits.detach().double().softmax(1).cpu()
        self.rows.append(np.concatenate([probabilities, classes.cpu()[:, None]], axis=1))

    def compute(self) -> float:
        """The number over all processes; NaN where a class is missing."""
        rows = np.concatenate(distributed.gather(np.concatenate(self.rows)))
        return self.function(rows[:, :-1], rows[:, -1].astype(np.int64))

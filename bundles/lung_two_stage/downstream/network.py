"""The diagnosis: a small classifier of whole slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from numpy.typing import NDArray
from torch import Tensor, nn

from common.metrics.classification import balanced_accuracy, macro_area
from common.metrics.ignite_metrics import as_given
from common.training import distributed


class SliceClassifier(nn.Module):
    """Slice to class: convolutions that halve, then the strongest and the mean response of every channel.

    (B, 1, H, W) in [-1, 1] -> logits (B, classes). A nodule covers a hundredth of a slice: in a mean alone it
    would drown.

    Args:
        classes: 2 for nodule or none.
        width: channels of the first level; they double up to four times as many.
        levels: each two 3 x 3 convolutions with batch norm and ReLU; a 2 x 2 max pooling between two levels.
        dropout: before the last layer.
    """

    def __init__(self, classes: int = 2, width: int = 16, levels: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = 1
        for level in range(levels):
            target = width * min(2**level, 4)
            layers += [*_convolved(source, target), *_convolved(target, target)]
            layers += [nn.MaxPool2d(2)] if level < levels - 1 else []
            source = target
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(2 * source, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] -> logits (B, classes)."""
        maps = self.features(images)  # (B, C, h, w)
        pooled = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1)  # (B, 2 C)
        logits: Tensor = self.last(self.dropout(pooled))
        return logits


def _convolved(source: int, target: int) -> list[nn.Module]:
    convolution = nn.Conv2d(source, target, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(target), nn.ReLU()]


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

"""The classifier of whole slices that stands for a diagnosis, and what its training measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.metrics.classification import balanced_accuracy, macro_area


class SliceClassifier(nn.Module):
    """Maps slices (B, 1, H, W) in [-1, 1] to logits (B, classes).

    Convolutions and pooling, then the maximum and the mean of every channel: a nodule covers a hundredth of a
    slice, and a mean alone would hide it.

    Args:
        classes: 2 for nodule or none.
        width: channels of the first level; they double up to four times as many.
        levels: each two 3 x 3 convolutions with batch norm and ReLU; a 2 x 2 max pooling between two levels.
        dropout: before the last layer.

    Example:
        >>> SliceClassifier(classes=3, width=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
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
        """(B, 1, H, W) -> (B, classes)."""
        maps = self.features(images)  # (B, C, h, w)
        pooled = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1)  # (B, 2 C)
        logits: Tensor = self.last(self.dropout(pooled))
        return logits


def _convolved(source: int, target: int) -> list[nn.Module]:
    convolution = nn.Conv2d(source, target, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(target), nn.ReLU()]


def image_to_class(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: ``image`` (B, 1, H, W) as input, ``class`` (B,) as target.

    Example:
        >>> batch = {"image": torch.zeros(2, 1, 8, 8), "class": [1, 0]}
        >>> image_to_class(batch)[1]
        tensor([1, 0])
    """
    image, target = batch["image"], torch.as_tensor(batch["class"])
    return image.to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)


def logits_and_classes(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: logits (B, K) and classes (B,), decollated or not.

    Example:
        >>> logits_and_classes({"pred": torch.zeros(2, 3), "label": torch.tensor([2, 1])})[1]
        tensor([2, 1])
    """
    items = [output] if isinstance(output, Mapping) else list(output)
    logits = torch.cat([torch.as_tensor(item["pred"]).reshape(-1, item["pred"].shape[-1]) for item in items])
    classes = torch.cat([torch.as_tensor(item["label"]).reshape(-1) for item in items])
    return logits.as_subclass(Tensor), classes.as_subclass(Tensor).long()


def macro_auc_of_logits(logits: Tensor, classes: Tensor) -> float:
    """A ``compute_fn`` of ignite's ``EpochMetric``: AUC, macro-averaged; NaN where a class is missing.

    Example:
        >>> macro_auc_of_logits(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        1.0
    """
    return macro_area(logits.double().softmax(1).numpy(), classes.numpy())


def balanced_accuracy_of_logits(logits: Tensor, classes: Tensor) -> float:
    """A ``compute_fn`` of ignite's ``EpochMetric``: balanced accuracy; NaN where a class is missing.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> balanced_accuracy_of_logits(logits, torch.tensor([0, 1, 1]))
        0.75
    """
    return balanced_accuracy(logits.argmax(1).numpy(), classes.numpy(), logits.shape[1])

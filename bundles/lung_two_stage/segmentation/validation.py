"""Example images and metrics for the training of a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.metrics import Metric
from torch import Tensor

from common.data.loaders import example_batch
from common.data.nodules import NoduleSliceDataset
from common.inference.prepare_batch import prediction_target_condition
from common.metrics.ignite_metrics import as_given, batched, summed


def example_images(dataset: NoduleSliceDataset, count: int) -> dict[str, Tensor]:
    """A batch for image grids: the CT as condition, the true mask in [-1, 1] as real image.

    The grid shows the logits from -1 (black) to 1 (white) between the two.
    """
    batch = example_batch(dataset, count)
    return {"label": batch["image"], "image": batch["label"] * 2 - 1}


def mask_and_truth(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: predicted and true mask, (B, 1, H, W) in {0, 1}.

    Example:
        >>> logits = torch.tensor([[[[-1.0, 2.0]]]])
        >>> mask_and_truth({"pred": logits, "label": torch.ones(1, 1, 1, 2), "image": logits})[0].tolist()
        [[[[0.0, 1.0]]]]
    """
    logits, truth, _ = prediction_target_condition(output)
    return (logits > 0).float(), truth


class NoduleSensitivity(Metric):
    """Share of patches with a nodule in which the predicted mask overlaps it, in [0, 1].

    Args:
        output_transform: engine output -> (mask, true mask), (B, 1, H, W) in {0, 1}.
    """

    def __init__(
        self, output_transform: Callable[[Any], Any] = as_given, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Starts again."""
        self.sums = torch.zeros(2, dtype=torch.float64)  # touched, with a nodule

    def update(self, output: Any) -> None:
        """Adds a batch."""
        found, true = (batched(item).cpu() > 0 for item in output[:2])
        touched, present = (part.flatten(1).any(1).sum() for part in (found & true, true))
        self.sums += torch.stack([touched, present])

    def compute(self) -> float:
        """The share over all processes; 0 if there was no nodule."""
        touched, present = summed(self.sums).tolist()
        return touched / present if present else 0.0

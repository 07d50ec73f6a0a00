"""Image and annotation together: what the overlay ``annotation.yaml`` needs beside the plain bundle.

The generator sees a perturbed or coarse label and puts out a *pair*: channel 0 is the image in [-1, 1], the
K + 1 others are the logits of the label map that belongs to it, background first. A real pair is the real
image with its true map, written as logits too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bundles.patchgan_cardiac.networks import PatchGridDiscriminator
from common.inference.prepare_batch import prediction_target_condition
from common.networks.discriminators import DiscriminatorOutput
from common.training.precision import Precision
from common.training.trainer import prepare_batch

SURE = 6.0
"""Logit of the true class in a real pair, 0 for the others: with 7 classes a probability of 0.98.

Probabilities of exactly 0 and 1 would tell a real map from a generated one whatever it shows.
"""

Term = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def real_pair(image: Tensor, annotation: Tensor, classes: int) -> Tensor:
    """Image (B, 1, S, S) and class indices (B, 1, S, S) as a pair (B, 2 + classes, S, S)."""
    index = annotation[:, 0].round().long()  # (B, S, S)
    truth = functional.one_hot(index, classes + 1).movedim(-1, 1)  # (B, classes + 1, S, S)
    return torch.cat([image, SURE * truth.to(image.dtype)], dim=1)


def annotation_of(pair: Tensor) -> Tensor:
    """The label map of a pair: (B, 2 + classes, S, S) -> class indices float (B, 1, S, S)."""
    return pair[:, 1:].argmax(dim=1, keepdim=True).float()


class WithPairs:
    """A ``prepare_batch`` for the trainer that adds ``pair``: ``image`` and ``annotation`` as a real pair."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, batch: Mapping[str, Any], precision: Precision) -> dict[str, Any]:
        prepared = prepare_batch(batch, precision)
        return {**prepared, "pair": real_pair(prepared["image"], prepared["annotation"], self.classes)}


class PairDiscriminator(PatchGridDiscriminator):
    """A `PatchGridDiscriminator` that judges pairs: it sees the map as probabilities.

    Args:
        classes, encoding: of the condition; the pair's map has the same classes.
        width, downsamplings, norm: as there.
    """

    def __init__(
        self,
        classes: int = 7,
        encoding: str = "index",
        width: int = 64,
        downsamplings: int = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__(classes, encoding, 2 + classes, width, downsamplings, norm)

    def forward(self, image: Tensor, condition: Tensor) -> DiscriminatorOutput:
        """Pair (B, 2 + classes, S, S), class indices (B, 1, S, S) -> logits (B, 1, s, s)."""
        seen = torch.cat([image[:, :1], image[:, 1:].float().softmax(dim=1)], dim=1)
        return super().forward(seen, condition)


class OnImage:
    """A loss of images, taken on the images of two pairs."""

    def __init__(self, term: Term) -> None:
        self.term = term

    def __call__(self, generated: Tensor, real: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pairs (B, 2 + classes, S, S) -> scalar."""
        return self.term(generated[:, :1], real[:, :1], condition)


def annotation_loss(generated: Tensor, real: Tensor, condition: Tensor | None = None) -> Tensor:
    """Cross-entropy of the generated map against the true one, pairs (B, 2 + classes, S, S) -> scalar."""
    return functional.cross_entropy(generated[:, 1:].float(), annotation_of(real)[:, 0].long())


def label_to_pair(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch`` for evaluators: the label in, image and true map (B, 2, S, S) as target."""
    target = torch.cat([batch["image"], batch["annotation"]], dim=1)
    return batch["label"].to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)


def image_part(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """An ``output_transform``: generated image, real image, true map, (B, 1, S, S) each."""
    generated, target, _ = prediction_target_condition(output)
    return generated[:, :1], target[:, :1], target[:, 1:]


def annotation_part(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: generated and true map, class indices (B, 1, S, S)."""
    generated, target, _ = prediction_target_condition(output)
    return annotation_of(generated), target[:, 1:]


def condition_part(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the perturbed map, as if it were the prediction, and the true one."""
    _, target, condition = prediction_target_condition(output)
    return condition, target[:, 1:]

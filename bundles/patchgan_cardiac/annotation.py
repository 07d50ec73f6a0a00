"""Generation of image and annotation together, for the overlay ``annotation.yaml``.

The generator sees a perturbed or coarse label and returns a *pair*: channel 0 is the image in [-1, 1], the
K + 1 others are the logits of its label map, background first. A real pair is the real image with its true
map, as logits too.
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
"""Logit of the true class in a real pair, 0 for the others: a probability of 0.98 with 7 classes.

With probabilities of exactly 0 and 1 a discriminator would recognise real maps by the values alone.
"""

Term = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def real_pair(image: Tensor, annotation: Tensor, classes: int) -> Tensor:
    """Joins image (B, 1, S, S) and class indices (B, 1, S, S) to a pair (B, 2 + classes, S, S).

    Example:
        >>> pair = real_pair(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 3.0), classes=7)
        >>> tuple(pair.shape), annotation_of(pair).unique().item()
        ((1, 9, 4, 4), 3.0)
    """
    index = annotation[:, 0].round().long()  # (B, S, S)
    truth = functional.one_hot(index, classes + 1).movedim(-1, 1)  # (B, classes + 1, S, S)
    return torch.cat([image, SURE * truth.to(image.dtype)], dim=1)


def annotation_of(pair: Tensor) -> Tensor:
    """Returns the label map of a pair: (B, 2 + classes, S, S) -> class indices float (B, 1, S, S)."""
    return pair[:, 1:].argmax(dim=1, keepdim=True).float()


class WithPairs:
    """A ``prepare_batch`` for the trainer that adds ``pair``: ``image`` and ``annotation`` as a real pair."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, batch: Mapping[str, Any], precision: Precision) -> dict[str, Any]:
        prepared = prepare_batch(batch, precision)
        return {**prepared, "pair": real_pair(prepared["image"], prepared["annotation"], self.classes)}


class PairDiscriminator(PatchGridDiscriminator):
    """A `PatchGridDiscriminator` for pairs, with the map as probabilities.

    Args:
        classes, encoding: classes of condition and map, encoding of the condition.
        width, downsamplings, norm: see `PatchGridDiscriminator`.
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
        pair = torch.cat([image[:, :1], image[:, 1:].float().softmax(dim=1)], dim=1)
        return super().forward(pair, condition)


class OnImage:
    """Applies a loss of images to the images of two pairs."""

    def __init__(self, term: Term) -> None:
        self.term = term

    def __call__(self, generated: Tensor, real: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pairs (B, 2 + classes, S, S) -> scalar."""
        return self.term(generated[:, :1], real[:, :1], condition)


def annotation_loss(generated: Tensor, real: Tensor, condition: Tensor | None = None) -> Tensor:
    """Returns the cross-entropy of the generated map and the true one, pairs (B, 2 + classes, S, S)."""
    return functional.cross_entropy(generated[:, 1:].float(), annotation_of(real)[:, 0].long())


def label_to_pair(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch`` for evaluators: the label as input, image and true map (B, 2, S, S) as target."""
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
    """An ``output_transform``: the perturbed map as prediction, and the true map."""
    _, target, condition = prediction_target_condition(output)
    return condition, target[:, 1:]

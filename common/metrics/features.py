"""Feature extractors by name. The name is part of every metric's name that rests on features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.lite0 import lite0
from common.metrics.pretrained import inception, radimagenet
from common.metrics.randvgg import GridVGG, RandomVGG


class FeatureExtractor(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into features (B, dimension) float32, without gradients.

    Attributes:
        sees_layout: whether anatomy in the wrong place is told from anatomy in its place, as measured by
            `common.metrics.ladder`: False is blind to layout, None not measured for want of the weights.
    """

    name: str
    dimension: int
    sees_layout: bool | None

    def __call__(self, images: Tensor) -> Tensor: ...


EXTRACTORS: dict[str, Callable[[Path | None], FeatureExtractor]] = {
    "gridvgg": lambda weights: GridVGG(),
    "lite0": lite0,
    "inception": inception,
    "radimagenet": radimagenet,
    "randvgg": lambda weights: RandomVGG(),  # blind to layout: for values that compare with earlier ones
}


def extractor_by_name(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """The extractor called ``name``: ``gridvgg``, ``lite0``, ``inception``, ``radimagenet`` or ``randvgg``.

    ``gridvgg`` needs nothing, ``lite0`` the extra of that name, the next two a download at first use.
    ``randvgg`` is blind to layout and stays for values that are to compare with earlier ones.

    Args:
        weights: a file for the pretrained ones, instead of the installed one or a download: TorchScript, for
            ``lite0`` a state_dict.
    Raises:
        UserError: unknown name, or weights that are neither on this machine nor can be fetched.
    """
    if name not in EXTRACTORS:
        raise UserError(f"extractor '{name}' is unknown; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](None if weights is None else Path(weights))


def choosing_extractor(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """`extractor_by_name` for a metric that chooses the best checkpoint.

    Raises:
        UserError: as `extractor_by_name`, or an extractor that is blind to layout: it would take shuffled
            quadrants for real slices.
    """
    extractor = extractor_by_name(name, weights)
    if extractor.sees_layout is False:
        raise UserError(
            f"extractor {name} is blind to layout and cannot choose the best model; "
            "train with extractor gridvgg or lite0 (evaluating with it stays possible)"
        )
    return extractor


@torch.inference_mode()
def extract(
    extractor: FeatureExtractor, images: Tensor, batch_size: int = 16, device: torch.device | str = "cpu"
) -> Tensor:
    """Features of any number of images, in batches: (N, 1, H, W) -> (N, dimension) float32 on the CPU.

    The extractor must already be on ``device``.
    """
    batches = [extractor(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(batches) if batches else torch.zeros(0, extractor.dimension)

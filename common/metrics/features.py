"""Feature extractors by name. The name is part of every metric's name that rests on features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.pretrained import inception, radimagenet
from common.metrics.randvgg import RandomVGG


class FeatureExtractor(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into features (B, dimension) float32, without gradients."""

    name: str
    dimension: int

    def __call__(self, images: Tensor) -> Tensor: ...


EXTRACTORS: dict[str, Callable[[Path | None], FeatureExtractor]] = {
    "randvgg": lambda weights: RandomVGG(),
    "inception": inception,
    "radimagenet": radimagenet,
}


def extractor_by_name(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """The extractor called ``name``: ``randvgg`` (offline), ``inception`` or ``radimagenet``.

    Args:
        weights: a TorchScript file for the pretrained ones, instead of a download.
    Raises:
        UserError: unknown name, or weights that are neither on this machine nor can be fetched.
    """
    if name not in EXTRACTORS:
        raise UserError(f"extractor '{name}' is unknown; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](None if weights is None else Path(weights))


@torch.inference_mode()
def extract(
    extractor: FeatureExtractor, images: Tensor, batch_size: int = 16, device: torch.device | str = "cpu"
) -> Tensor:
    """Features of any number of images, in batches: (N, 1, H, W) -> (N, dimension) float32 on the CPU.

    The extractor must already be on ``device``.
    """
    batches = [extractor(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(batches) if batches else torch.zeros(0, extractor.dimension)

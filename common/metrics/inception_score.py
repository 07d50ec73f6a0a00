"""Inception score (Salimans et al. 2016): images that a classifier is sure of, and of all its classes.

The score says as much about the classifier as about the images: its name is part of the score's
(``is_<name>``), and scores of different classifiers do not compare. It knows no real images; give theirs
beside it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value

TINY = 1e-12
"""Stands for a probability of 0: 0 log 0 is 0."""
TOLERANCE = 1e-3


class Classifier(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into class probabilities (B, K), without gradients."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


def inception_score(probabilities: Tensor, weights: Tensor | None = None) -> float:
    """exp(E KL(p(y|x) || p(y))): 1 at the worst, K where every class is as common and every image certain.

    All images at once, not the mean over ten parts of 5 000 as published: sets here are smaller. It grows
    with the number of images: compare sets of equal numbers.

    Args:
        probabilities: (N, K), each row of sum 1.
        weights: (N,) how often each image counts (bootstrap); once each by default.
    Raises:
        UserError: no images, or rows that are no probabilities.
    """
    _check(probabilities)
    rows = probabilities.double()
    counts = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
    shares = counts / counts.sum()
    marginal = shares @ rows  # (K,)
    divergences = (rows * ((rows + TINY).log() - (marginal + TINY).log())).sum(1)  # (N,)
    return float((shares @ divergences).exp())


def score_with_interval(probabilities: Tensor, resamples: Resamples) -> Value:
    """The score with its interval."""
    return resamples.distance(lambda weights: inception_score(probabilities, weights)).at_least(1)


@torch.inference_mode()
def class_probabilities(
    classifier: Classifier, images: Tensor, batch_size: int = 32, device: torch.device | str = "cpu"
) -> Tensor:
    """Of any number of images, in batches: (N, 1, H, W) -> (N, K) float32 on the CPU.

    The classifier must already be on ``device``.
    """
    return torch.cat([classifier(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


def _check(probabilities: Tensor) -> None:
    if not len(probabilities):
        raise UserError("no images for the inception score; at least 1 is needed")
    sums = probabilities.double().sum(1)
    if bool((probabilities < 0).any()) or bool(((sums - 1).abs() > TOLERANCE).any()):
        raise UserError("the inception score takes probabilities: rows of sum 1, none below 0; use a softmax")

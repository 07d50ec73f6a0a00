"""Inception score (Salimans et al. 2016): high if a classifier is sure of each image and sees all classes.

The score depends on the classifier as much as on the images: the classifier is part of its name
(``is_<name>``), and scores of different classifiers are not comparable. It uses no real images; report their
score beside it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value

TINY = 1e-12
"""Added to probabilities, so that 0 log 0 is 0."""
TOLERANCE = 1e-3


class Classifier(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into class probabilities (B, K), without gradients."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


def inception_score(probabilities: Tensor, weights: Tensor | None = None) -> float:
    """exp(E KL(p(y|x) || p(y))): at least 1, at most K (all classes equally common, every image certain).

    It is computed from all images at once instead of ten parts of 5 000 as published, since sets here are
    smaller. It grows with the number of images: compare sets of equal size.

    Args:
        probabilities: (N, K), each row of sum 1.
        weights: (N,) how often each image counts (bootstrap); once by default.
    Raises:
        UserError: no images, or rows that are no probabilities.

    Example:
        >>> round(inception_score(torch.eye(4)), 3)
        4.0
    """
    _check(probabilities)
    rows = probabilities.double()
    counts = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
    shares = counts / counts.sum()
    marginal = shares @ rows  # (K,)
    divergences = (rows * ((rows + TINY).log() - (marginal + TINY).log())).sum(1)  # (N,)
    return float((shares @ divergences).exp())


def score_with_interval(probabilities: Tensor, resamples: Resamples) -> Value:
    """`inception_score` with its interval.

    Example:
        >>> import numpy as np
        >>> drawn = Resamples.draw(None, 8, 50, np.random.default_rng(0))
        >>> round(score_with_interval(torch.eye(4).repeat(2, 1), drawn).mean, 3)
        4.0
    """
    return resamples.distance(lambda weights: inception_score(probabilities, weights)).at_least(1)


@torch.inference_mode()
def class_probabilities(
    classifier: Classifier, images: Tensor, batch_size: int = 32, device: torch.device | str = "cpu"
) -> Tensor:
    """Class probabilities of images, in batches: (N, 1, H, W) -> (N, K) float32 on the CPU.

    The classifier must already be on ``device``.

    Example:
        >>> def halves(images):
        ...     return torch.full((len(images), 2), 0.5)
        >>> class_probabilities(halves, torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 2])
    """
    return torch.cat([classifier(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


def _check(probabilities: Tensor) -> None:
    if not len(probabilities):
        raise UserError("no images for the inception score; at least 1 is needed")
    sums = probabilities.double().sum(1)
    if bool((probabilities < 0).any()) or bool(((sums - 1).abs() > TOLERANCE).any()):
        raise UserError("the inception score takes probabilities: rows of sum 1, none below 0; use a softmax")

"""Images whose answer is known: copies of training images, and sets that are no copies but near to all."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from common.metrics.baselines import mean_image

SHIFT, ZOOM, TURN, NOISE = 1 / 16, 1.25, 20.0, 0.1
"""The most that a planted copy is shifted (of the side), zoomed, rotated (degrees), and its noise's sd."""
COMPONENTS = 5
MOST_DECOMPOSED = 500
"""Training images, drawn at random, whose principal components are taken."""
BLUR = 1 / 32
"""Standard deviation of the blurred baseline, of the side."""


def moved(images: Tensor, log_scale: Tensor, degrees: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images (N, 1, S, S) zoomed about the middle, rotated and shifted; the border's pixels go on outside.

    Args:
        log_scale, degrees, down, across: (N,) each, or (1,) for all; shifts as shares of the side, of what is
            sampled.
    """
    poses = torch.stack(torch.broadcast_tensors(log_scale, degrees, down, across), 1).float()
    grid = pose_grids(poses.expand(len(images), -1), images.shape[-1])
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def pose_grids(poses: Tensor, side: int) -> Tensor:
    """Where each pixel comes from, (N, side, side, 2) for `torch.nn.functional.grid_sample`.

    Args:
        poses: (N, 4): logarithm of the scale, degrees, shares of the side down and across.
    """
    scale, angle = poses[:, 0].exp(), poses[:, 1].deg2rad()
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    down, across = 2 * poses[:, 2], 2 * poses[:, 3]
    rows = [torch.stack(row, 1) for row in ((cosine, -sine, across), (sine, cosine, down))]
    return F.affine_grid(torch.stack(rows, 1), [len(poses), 1, side, side], align_corners=False)


def planted_copies(images: Tensor, numbers: np.random.Generator) -> Mapping[str, Tensor]:
    """Each kind of copy of all ``images`` (N, 1, S, S) by name; halves are of an image and the next one."""
    still = torch.zeros(len(images))

    def drawn(most: float) -> Tensor:
        return torch.from_numpy(numbers.uniform(-most, most, len(images)))

    noise = torch.from_numpy(numbers.normal(0, NOISE, images.shape)).to(images.dtype)
    halves, middle = images.clone(), images.shape[-1] // 2
    halves[..., middle:] = images.roll(-1, 0)[..., middle:]
    return {
        "exact": images,
        "noisy": images + noise,
        "flipped": images.flip(-1),
        "shifted": moved(images, still, still, drawn(SHIFT), drawn(SHIFT)),
        "zoomed": moved(images, drawn(math.log(ZOOM)), still, still, still),
        "rotated": moved(images, still, drawn(TURN), still, still),
        "gray_inverted": -images,
        "halves": halves,
    }


def harmless(
    training: Tensor, heldout: Tensor, count: int, numbers: np.random.Generator
) -> Mapping[str, Tensor]:
    """Sets that a gate must leave open: (1, 1, S, S), (count, 1, S, S) and (count, 1, S, S)."""
    chosen = torch.from_numpy(numbers.permutation(len(heldout))[:count].copy())
    return {
        "mean_image": mean_image(training, 1),
        "pca": principal_samples(training, count, numbers),
        "blurred_heldout": blurred(heldout[chosen]),
    }


def principal_samples(training: Tensor, count: int, numbers: np.random.Generator) -> Tensor:
    """Draws (count, 1, S, S) of a normal distribution along the training images' principal components."""
    values = training.flatten(1)
    if len(values) > MOST_DECOMPOSED:
        values = values[torch.from_numpy(numbers.permutation(len(values))[:MOST_DECOMPOSED].copy())]
    few = min(COMPONENTS, len(values) - 1)
    _, lengths, axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    spread = lengths[:few] / math.sqrt(len(values) - 1)
    drawn = torch.from_numpy(numbers.normal(size=(count, few))).to(values.dtype)
    return (values.mean(0) + (drawn * spread) @ axes[:few]).clamp(-1, 1).view(count, *training.shape[1:])


def blurred(images: Tensor) -> Tensor:
    """Images (N, 1, S, S) under a Gaussian filter."""
    sigma = BLUR * images.shape[-1]
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))



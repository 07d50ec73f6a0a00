"""GAN inversion: finds the latent whose generated image comes closest to a given image, by optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from common.errors import UserError
from common.inference.sampling import draw_images
from common.metrics.image_quality import ssim_map
from common.networks.diffusion import DiffusionGenerator
from common.networks.state import evaluating, frozen


@dataclass(frozen=True)
class ProjectionSettings:
    """Settings of the search for a latent.

    Attributes:
        drawn: number of candidates to begin with.
        starts: number of the best candidates that are optimised, side by side.
        iterations: iterations of Adam, whose learning rate falls to 0 along a cosine.
        learning_rate: in standard deviations of the latents.
        structure: weight of 1 - SSIM relative to the mean absolute error.
        prior: weight of the distance from the shell that N(0, I) fills, see `objective`.
    Raises:
        UserError: a number below 1, or a negative weight.
    """

    drawn: int = 256
    starts: int = 4
    iterations: int = 200
    learning_rate: float = 0.05
    structure: float = 0.5
    prior: float = 0.1

    def __post_init__(self) -> None:
        for name in ("drawn", "starts", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"projection: {name} {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "structure", "prior"):
            if getattr(self, name) < 0:
                raise UserError(f"projection: {name} {getattr(self, name)} must be at least 0")


class Projection(NamedTuple):
    """Result of a search.

    Attributes:
        latent: (L,).
        condition: its class, a scalar; None for unconditional models.
        image: its image, (1, 1, S, S) in [-1, 1].
        drawn: image of the best candidate before the optimisation, (1, 1, S, S).
    """

    latent: Tensor
    condition: Tensor | None
    image: Tensor
    drawn: Tensor


def objective(images: Tensor, target: Tensor, latents: Tensor, settings: ProjectionSettings) -> Tensor:
    """Computes mean absolute error, structural dissimilarity and the prior of N(0, I), weighted: (N,).

    The prior is the squared difference of z's mean square from 1: in L dimensions draws from N(0, I) lie
    close to a shell of radius sqrt(L); far inside or outside of it the generator has not been trained.

    Args:
        images: (N, 1, S, S) in [-1, 1].
        target: (1, 1, S, S) in [-1, 1].
        latents: (N, L).
        settings: the weights.
    """
    real = target.expand_as(images)
    error = (images - real).abs().mean((1, 2, 3))
    structure = 1 - ssim_map(images, real).mean((1, 2, 3)) if settings.structure else torch.zeros_like(error)
    shell = (latents.square().mean(1) - 1).square()
    return error + settings.structure * structure + settings.prior * shell


def project(
    network: nn.Module,
    target: Tensor,
    candidates: Tensor,
    conditions: Tensor | None = None,
    settings: ProjectionSettings | None = None,
) -> Projection:
    """Finds the latent whose image is closest to ``target``.

    Args:
        network: the generator; its weights and modes stay as they are.
        target: (1, 1, S, S) in [-1, 1].
        candidates: (N, L), draws from N(0, I) to begin with.
        conditions: (N,) class of each candidate, which it keeps, so that the best class is found too.
        settings: None for the defaults.
    Raises:
        UserError: the network draws without gradients, as a diffusion model does.
    """
    settings = settings or ProjectionSettings()
    if isinstance(network, DiffusionGenerator):
        raise UserError(
            "a diffusion model draws without gradients, so real images cannot be projected; interpolate "
            "between draws (--from_seed, --from_sample) or use a GAN's model"
        )
    images = draw_images(network, candidates, conditions)
    with torch.no_grad():
        losses = objective(images, target, candidates, settings)
    best = losses.argsort()[: settings.starts]
    classes = None if conditions is None else conditions[best]
    latents = _descend(network, target, candidates[best], classes, settings)
    results = draw_images(network, latents, classes)
    with torch.no_grad():
        index = int(objective(results, target, latents, settings).argmin())
    condition = None if classes is None else classes[index]
    return Projection(latents[index], condition, results[index : index + 1], images[best[:1]])


def _descend(
    network: nn.Module, target: Tensor, starts: Tensor, classes: Tensor | None, settings: ProjectionSettings
) -> Tensor:
    """Runs Adam from each start (N, L); the sum of the losses gives each start its own gradient."""
    latents = starts.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([latents], settings.learning_rate)
    schedule = CosineAnnealingLR(optimizer, settings.iterations)
    inputs = [latents] if classes is None else [latents, classes]
    with evaluating(network), frozen([network]), torch.enable_grad():
        for _ in range(settings.iterations):
            optimizer.zero_grad(set_to_none=True)
            objective(network(*inputs).float(), target, latents, settings).sum().backward()
            optimizer.step()
            schedule.step()
    return latents.detach()

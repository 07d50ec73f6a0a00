"""From an image back to its noise: the latent whose image comes closest, found by optimisation."""

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
from common.training.contexts import evaluating
from common.training.trainer import frozen


@dataclass(frozen=True)
class ProjectionSettings:
    """How to look for a latent.

    Attributes:
        drawn: candidates to begin with.
        starts: how many of the best candidates are optimised, side by side.
        iterations: of Adam, whose rate falls to 0 along a cosine.
        learning_rate: in standard deviations of the latents.
        structure: weight of 1 - SSIM beside the mean absolute error.
        prior: weight of the distance from the shell that N(0, I) fills, see `objective`.
    Raises:
        UserError: settings that leave nothing to do.
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
    """What was found, and the best candidate that the search began with.

    Attributes:
        latent: (L,).
        condition: its class, a scalar; None where there are no classes.
        image: (1, 1, S, S) in [-1, 1].
        drawn: the best candidate's image (1, 1, S, S).
    """

    latent: Tensor
    condition: Tensor | None
    image: Tensor
    drawn: Tensor


def objective(images: Tensor, target: Tensor, latents: Tensor, settings: ProjectionSettings) -> Tensor:
    """Mean absolute error, structure, and the prior of N(0, I): (N,).

    The prior is the squared difference of z's mean square from 1: in L dimensions draws from N(0, I) lie
    close to a shell of radius sqrt(L); far inside or outside of it the generator has seen nothing.

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
    """The latent whose image is closest to ``target``.

    Args:
        network: the generator; its weights and modes stay as they are.
        target: (1, 1, S, S) in [-1, 1].
        candidates: (N, L), where to look first: draws from N(0, I).
        conditions: (N,) class of each candidate, which it keeps; so the best class is found too.
        settings: the defaults where None.
    Raises:
        UserError: the network draws without gradients, as a diffusion model does.
    """
    settings = settings or ProjectionSettings()
    if isinstance(network, DiffusionGenerator):
        raise UserError(
            "a diffusion model draws with no gradient, so real images cannot be projected; walk between "
            "draws (--from_seed, --from_sample) or use a GAN's model"
        )
    images = draw_images(network, candidates, conditions)
    with torch.no_grad():
        losses = objective(images, target, candidates, settings)
    best = losses.argsort()[: settings.starts]
    classes = None if conditions is None else conditions[best]
    latents = _descend(network, target, candidates[best], classes, settings)
    found = draw_images(network, latents, classes)
    with torch.no_grad():
        place = int(objective(found, target, latents, settings).argmin())
    condition = None if classes is None else classes[place]
    return Projection(latents[place], condition, found[place : place + 1], images[best[:1]])


def _descend(
    network: nn.Module, target: Tensor, starts: Tensor, classes: Tensor | None, settings: ProjectionSettings
) -> Tensor:
    """Adam from each start (N, L); the sum of the losses leaves each start its own gradient."""
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

"""Checks before a run: do networks, image size, losses and penalties fit together?"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from common.capsules import RoutingCapsules
from common.errors import UserError
from common.losses.adversarial import AdversarialLoss, adversarial_loss
from common.networks.state import evaluating
from common.rng import preserved_rng

logger = logging.getLogger(__name__)
BETWEEN = "between"
PLACES = (BETWEEN, "real", "fake", "both")
"""Where a gradient penalty can be taken, see `common.training.steps.DiscriminatorStep`."""


def check_fit(
    generator: nn.Module,
    discriminator: nn.Module,
    image_size: int,
    inputs: Sequence[str] = ("label",),
    condition: str | None = "label",
    latent: int = 0,
) -> None:
    """Passes one empty sample through both networks; random states and modes are restored.

    Args:
        image_size: S.
        inputs: what the generator takes: ``label``, an empty mask (1, 1, S, S), ``latent`` (1, latent) or
            ``class``, the first one (1,).
        condition: the discriminator's second input; None for none.
        latent: values of a latent.
    Raises:
        UserError: a network does not take the size, or returns images of another.

    Example:
        >>> from common.networks.discriminators import ConditionalPatchDiscriminator
        >>> from common.networks.generators import ResnetGenerator
        >>> check_fit(ResnetGenerator(width=4, blocks=1), ConditionalPatchDiscriminator(channels=4), 64)
    """
    device = next(generator.parameters()).device
    mask = torch.zeros(1, 1, image_size, image_size, device=device)
    first_class = torch.zeros(1, dtype=torch.int64, device=device)
    batch = {"label": mask, "latent": torch.zeros(1, latent, device=device), "class": first_class}
    try:
        with evaluating(generator, discriminator), preserved_rng(0), torch.inference_mode():
            image = generator(*(batch[name] for name in inputs))
            if image.shape[-2:] != mask.shape[-2:]:
                raise ValueError(f"images of {tuple(image.shape[-2:])}")
            discriminator(image, None if condition is None else batch[condition])
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"image_size {image_size} does not fit the networks ({reason}); take a multiple of 2 to the "
            "power of the generator's levels, or change network_def and discriminator_def"
        ) from error


def check_critic(
    discriminator: nn.Module,
    adversarial: str | AdversarialLoss,
    penalty: float = 0.0,
    weight_clip: float | None = None,
    penalty_at: str = BETWEEN,
) -> None:
    """Raises on a critic without a bound, and on a penalty that is not on the critic's gradient.

    The Wasserstein distance is over critics of bounded slope (Arjovsky et al. 2017): without a bound its loss
    has no minimum. A penalty between the images aims at slope 1; one at the images aims at 0 against the
    loss, which bounds the critic as well (Mescheder et al. 2018). Batch norm undoes a bound: it divides by
    the batch's own deviation. With routing that is constant for autograd (``gradients: last``), the gradient
    of a capsule critic is not the critic's.

    Args:
        adversarial: the loss or its name.
        penalty: coefficient of the gradient penalty; 0 for none.
        weight_clip: see `common.training.optimisation.clip_weights`.
        penalty_at: see `common.training.steps.DiscriminatorStep`.
    Raises:
        UserError: no such place of a penalty, a critic without a bound or with batch norm, or a penalty on
            capsules with ``gradients: last``.
    """
    check_penalty(penalty_at)
    loss = adversarial_loss(adversarial) if isinstance(adversarial, str) else adversarial
    is_critic = loss.needs_bound
    if is_critic and not (penalty or weight_clip or _spectrally_bounded(discriminator)):
        raise UserError(
            "adversarial wasserstein needs a critic whose slope is bounded: set gradient_penalty (10.0 as "
            "published), or where there is one weight_clip (0.01) or discriminator_def#spectral"
        )
    if is_critic and has_batch_norm(discriminator):
        raise UserError(
            "adversarial wasserstein: batch norm undoes the bound of the critic's slope; set "
            "discriminator_def#norm to layer, instance or none"
        )
    routings = [module for module in discriminator.modules() if isinstance(module, RoutingCapsules)]
    if penalty and any(routing.gradients == "last" for routing in routings):
        raise UserError(
            "gradient_penalty: discriminator_def#gradients last takes the routing for a constant, so that "
            "the penalty is not on the critic's gradient; set it to all"
        )


def check_penalty(penalty_at: str, interval: int = 1) -> None:
    """Raises `UserError` on an unknown place of a penalty or an interval below 1."""
    if penalty_at not in PLACES:
        raise UserError(f"penalty_at {penalty_at!r} is unknown; choose one of {', '.join(PLACES)}")
    if interval < 1:
        raise UserError(f"penalty_interval is {interval}; it must be at least 1")


def warn_of_tied_samples(discriminator: nn.Module, penalty: float) -> None:
    """Warns of a gradient penalty with batch norm, which couples the samples of a batch.

    Gulrajani et al. 2017, section 4, leave batch norm out of the critic for that reason.
    """
    if penalty and has_batch_norm(discriminator):
        logger.warning(
            "gradient_penalty: batch norm ties the samples of a batch, and the penalty is not on each one's "
            "own gradient; discriminator_def#norm layer, instance or none keeps them apart"
        )


def warn_of_running_averages(network: nn.Module, batch_size: int) -> None:
    """Warns of batch norm with batches of one image: training and evaluation use other statistics."""
    if batch_size == 1 and has_batch_norm(network):
        logger.warning(
            "batch_size 1 with batch norm: the network learns with each image's own statistics and draws "
            "with running averages, which are others; take network_def#norm instance, or a larger batch"
        )


def has_batch_norm(network: nn.Module) -> bool:
    """Tells whether any layer normalises by batch statistics."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _spectrally_bounded(network: nn.Module) -> bool:
    """Tells whether every convolution and dense layer has spectral normalisation."""
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | _ConvNd)]
    return bool(layers) and all(is_parametrized(layer, "weight") for layer in layers)

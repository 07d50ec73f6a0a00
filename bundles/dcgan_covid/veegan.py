"""VEEGAN (Srivastava et al. 2017): a third network maps images back to noise, against mode collapse.

The reconstructor F gives the noise F(x) of an image x. The discriminator sees pairs of image and noise:
(G(z), z) from the generator, (x, F(x)) from the data. If the generator covers a few modes only, F maps the
other images to noise that is not N(0, I), which the discriminator detects; and G and F together must
reconstruct z, which is impossible if many z give one image.

The paper's D(z, x) estimates the log ratio of generated to real pairs. Here real is high, as in the other
losses: D(z, x) = -logit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundles.dcgan_covid.networks import SLOPE, SMALLEST, check_size, halving, normalise_spectrally
from common.losses.adversarial import AdversarialLoss, adversarial_loss
from common.networks.discriminators import DiscriminatorOutput
from common.training.steps import Context, DiscriminatorStep, GeneratorStep

RECONSTRUCTOR = "F"
"""Name of the network that maps images to noise."""


def veegan_loss() -> AdversarialLoss:
    """Returns the adversarial part of the loss, on logits = -D.

    The discriminator minimises O_LR = -E[log sigmoid(D(z, G(z)))] - E[log(1 - sigmoid(D(F(x), x)))] and the
    generator E[D(z, G(z))] (the objective O-hat and algorithm 1 of the paper).
    """
    bce = adversarial_loss("bce")
    return AdversarialLoss(real=bce.real, fake=bce.fake, fooled=torch.neg)


def latent_distance(latent: Tensor, reconstructed: Tensor) -> Tensor:
    """Computes E[d(z, F(G(z)))] with the squared L2 distance: two (B, latent) -> scalar.

    Example:
        >>> latent_distance(torch.zeros(2, 3), torch.ones(2, 3))
        tensor(3.)
    """
    return (latent.float() - reconstructed.float()).square().sum(1).mean()


class VeeganDiscriminatorStep(DiscriminatorStep):
    """Trains the discriminator to tell pairs (x, F(x)) from pairs (G(z), z).

    Takes `veegan_loss`, and as ``condition`` the entry of the batch with the noise; F is the network called
    `RECONSTRUCTOR`.
    """

    def conditions(self, context: Context) -> tuple[Tensor | None, Tensor | None]:
        """Returns F(x), the condition of real images, and z, that of generated ones."""
        with torch.no_grad():
            reconstructed = context.networks[RECONSTRUCTOR](context.batch[self.real])
        return reconstructed, context.batch[self.condition or ""]


class VeeganGeneratorStep(GeneratorStep):
    """Trains G to make pairs that pass for real, and G and F together to reconstruct the noise.

    F learns from the distance only: the discriminator's output for (G(z), z) does not depend on it.

    Args:
        adversarial: `veegan_loss`.
        inputs: entries of the batch that G takes.
        condition: entry of the batch with the noise.
        weights: of ``G_adversarial`` and ``G_latent``, 1 each as published.
        repeat: updates per iteration. The optimiser ``G`` holds the weights of both networks.
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        inputs: Sequence[str] = ("latent",),
        condition: str = "latent",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(adversarial, inputs=inputs, condition=condition, weights=weights, repeat=repeat)
        self.trains = (*self.trains, RECONSTRUCTOR)

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns ``NAME_adversarial`` and ``NAME_latent``."""
        losses = super().losses(context)
        generated = context.output(self.generator, self.inputs)
        reconstructed = context.networks[RECONSTRUCTOR](generated)
        losses[f"{self.name}_latent"] = latent_distance(context.batch[self.condition or ""], reconstructed)
        return losses


class Reconstructor(nn.Module):
    """Image to noise, with the discriminator's layers: (B, 1, S, S) in [-1, 1] -> (B, latent).

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: number of noise values.
        width: channels of the first layer.
        norm: see `bundles.dcgan_covid.networks.DcganDiscriminator`.
    """

    def __init__(
        self, image_size: int = 128, latent: int = 100, width: int = 64, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.hidden, widest = _trunk(image_size, width, norm)
        self.last = nn.Conv2d(widest, latent, SMALLEST)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, latent)."""
        return self.last(self.hidden(image)).flatten(1)  # (B, latent, 1, 1) -> (B, latent)


class JointDiscriminator(nn.Module):
    """Image and noise to one logit: each becomes a vector of ``joint`` values, then dense layers follow.

    Args:
        image_size, latent, width, norm: as in `Reconstructor`.
        joint: size of each of the two vectors.
        spectral: spectral normalisation of every layer (Miyato et al. 2018).
    """

    def __init__(
        self,
        image_size: int = 128,
        latent: int = 100,
        width: int = 64,
        norm: str = "batch",
        joint: int = 256,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.hidden, widest = _trunk(image_size, width, norm)
        self.image = nn.Conv2d(widest, joint, SMALLEST)
        self.noise = nn.Sequential(nn.Linear(latent, joint), nn.LeakyReLU(SLOPE), nn.Linear(joint, joint))
        self.both = nn.Sequential(
            nn.LeakyReLU(SLOPE), nn.Linear(2 * joint, joint), nn.LeakyReLU(SLOPE), nn.Linear(joint, 1)
        )
        if spectral:
            self.apply(normalise_spectrally)

    def forward(self, image: Tensor, condition: Tensor) -> DiscriminatorOutput:
        """Images (B, 1, S, S), noise (B, latent) -> logits (B, 1)."""
        features = self.hidden(image)
        vectors = [self.image(features).flatten(1), self.noise(condition)]  # (B, joint) each
        return DiscriminatorOutput([self.both(torch.cat(vectors, dim=1))], [[features]])


def _trunk(image_size: int, width: int, norm: str) -> tuple[nn.Sequential, int]:
    """Returns the convolutions that halve an image down to 4 x 4, and their number of output channels."""
    check_size(image_size)
    levels = int(math.log2(image_size // SMALLEST))
    widths: Sequence[int] = [1, *(width * min(2**level, 8) for level in range(levels))]
    layers: list[Any] = [
        halving(widths[level], widths[level + 1], norm if level else "none") for level in range(levels)
    ]
    return nn.Sequential(*layers), widths[-1]

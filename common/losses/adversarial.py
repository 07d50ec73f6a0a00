"""Adversarial losses on raw logits (no activation after the discriminator's last layer).

`monai.losses.PatchAdversarialLoss` is not used: its BCE is a sigmoid followed by ``BCELoss``, which CUDA
autocast refuses; its hinge bounds the logits with a tanh; its least squares by default bends them with a
LeakyReLU (without that it equals the one here). Each loss here is the published formula, in float32 whatever
the precision of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.capsules import ABSENT, PRESENT, absent_margin, present_margin
from common.errors import UserError

Logits = Tensor | Sequence[Tensor]  # one map, or one for each scale of a multi-scale discriminator
Term = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of an adversarial game. Build one with `adversarial_loss`.

    Attributes:
        real, fake: the discriminator's loss for each real or generated logit.
        fooled: the generator's loss for each generated logit.
        threshold: the logit above which an image counts as real, for the accuracy; None for a critic, whose
            values have no such point.
        paired: the discriminator's loss for a real logit minus a generated one, and the generator's for the
            reverse; then ``real``, ``fake`` and ``fooled`` are unused. None for losses of single logits.
    """

    real: Term
    fake: Term
    fooled: Term
    threshold: float | None = 0.0
    paired: Term | None = None

    @property
    def needs_bound(self) -> bool:
        """Whether the loss has a lowest value only over critics of bounded slope."""
        return self.threshold is None and self.paired is None

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> Tensor:
        """Returns the sum of both terms, each the mean over logits, then scales; a scalar.

        Paired losses have one term. Pix2pix halves the sum (Isola et al. 2017, section 3.3); that weight is
        the caller's.

        Raises:
            UserError: logits to be paired are not as many real as generated ones.
        """
        if self.paired is not None:
            return _mean(self.paired, _differences(logits_real, logits_fake))
        return _mean(self.real, logits_real) + _mean(self.fake, logits_fake)

    def generator_loss(self, logits_fake: Logits, logits_real: Logits | None = None) -> Tensor:
        """Returns the mean over logits, then scales; a scalar.

        Args:
            logits_real: of real images, without gradients; needed where logits are paired.
        Raises:
            UserError: paired logits without real ones, or not as many.
        """
        if self.paired is not None:
            if logits_real is None:
                raise UserError(
                    "adversarial relativistic compares with real images, which this training step does not "
                    "show to the discriminator; choose bce, least_squares or hinge"
                )
            return _mean(self.paired, _differences(logits_fake, logits_real))
        return _mean(self.fooled, logits_fake)


def adversarial_loss(kind: str = "bce") -> AdversarialLoss:
    """Returns the adversarial loss of that name.

    Args:
        kind: ``bce`` (Goodfellow et al. 2014, non-saturating), ``least_squares`` (Mao et al. 2017, eq. 9
            without its halves), ``hinge`` (Miyato et al. 2018, eq. 16-17), ``wasserstein`` (Arjovsky et al.
            2017; needs a gradient penalty or clipped weights), ``relativistic`` (real and generated images in
            pairs, each more real than the other: Jolicoeur-Martineau 2018, eq. 9 and 10; Huang et
            al. 2024, "R3GAN", with the penalties R1 and R2) or ``margin`` (CapsuleGAN, Jaiswal et al. 2018,
            eq. 3; for "logits" that are lengths of capsules, 0 to 1).
    Raises:
        UserError: no such loss.

    Example:
        >>> loss = adversarial_loss("least_squares")
        >>> loss.generator_loss(torch.tensor([0.0, 1.0])).item()  # (1 + 0) / 2
        0.5
    """
    if kind not in KINDS:
        raise UserError(f"adversarial loss '{kind}' is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def _differences(first: Logits, second: Logits) -> list[Tensor]:
    """Returns the first logits minus the second, scale by scale, in float32."""
    pairs = list(zip(_scales(first), _scales(second), strict=True))
    for one, other in pairs:
        if one.shape != other.shape:
            raise UserError(
                "adversarial relativistic pairs real with generated images, of which there are "
                f"{len(one)} and {len(other)}; give as many of both, in one size"
            )
    return [one.float() - other.float() for one, other in pairs]


def _scales(logits: Logits) -> list[Tensor]:
    return [logits] if isinstance(logits, Tensor) else list(logits)


def _mean(term: Term, logits: Logits) -> Tensor:
    scales = _scales(logits)
    return torch.stack([term(scale.float()).mean() for scale in scales]).mean()


KINDS = {
    # -log(sigmoid(x)) is softplus(-x), -log(1 - sigmoid(x)) is softplus(x): no overflow, no sigmoid.
    "bce": AdversarialLoss(
        real=lambda x: functional.softplus(-x),
        fake=functional.softplus,
        fooled=lambda x: functional.softplus(-x),
    ),
    "least_squares": AdversarialLoss(
        real=lambda x: (x - 1).square(), fake=torch.square, fooled=lambda x: (x - 1).square(), threshold=0.5
    ),
    "hinge": AdversarialLoss(
        real=lambda x: functional.relu(1 - x), fake=lambda x: functional.relu(1 + x), fooled=torch.neg
    ),
    "wasserstein": AdversarialLoss(real=torch.neg, fake=lambda x: x, fooled=torch.neg, threshold=None),
    "relativistic": AdversarialLoss(
        real=lambda x: functional.softplus(-x),
        fake=functional.softplus,
        fooled=lambda x: functional.softplus(-x),
        threshold=None,
        paired=lambda x: functional.softplus(-x),
    ),
    "margin": AdversarialLoss(
        real=present_margin, fake=absent_margin, fooled=present_margin, threshold=(PRESENT + ABSENT) / 2
    ),
}


Critic = Callable[[Tensor], Tensor]


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mixing: Tensor | None = None) -> Tensor:
    """WGAN-GP: E[(|grad D(x)| - 1)^2] at x between real and fake (Gulrajani et al. 2017, eq. 3).

    Mean over the batch, without the factor lambda; a scalar that can be differentiated again. Call it outside
    of autocast: squared gradients overflow in float16. x is in float32 whatever the images are.

    Args:
        critic: gives the values (B,) or (B, 1) of x, or their sum; for a patch critic the mean of a sample's
            logits, as in the loss. A conditional critic is passed with its condition bound,
            ``lambda x: critic(torch.cat([condition, x], 1))``. No batch norm: it ties the samples of a batch.
        real, fake: (B, ...) of the same shape; gradients flow into neither.
        mixing: (B,) in [0, 1], the share of ``real``; drawn from torch's generator when absent.

    Example:
        >>> slope_two = lambda x: 2 * x.sum(1)
        >>> gradient_penalty(slope_two, torch.zeros(3, 1), torch.ones(3, 1)).item()
        1.0
    """
    if mixing is None:
        mixing = torch.rand(real.shape[0], device=real.device)
    share = mixing.to(real.dtype).reshape(-1, *[1] * (real.ndim - 1))  # (B, 1, ..., 1)
    between = (share * real.detach() + (1 - share) * fake.detach()).float().requires_grad_(True)
    return (gradient_norm(critic, between) - 1).square().mean()


def zero_centred_penalty(critic: Critic, images: Tensor) -> Tensor:
    """R1 of real images, R2 of generated ones: E[|grad D(x)|^2] / 2 (Mescheder et al. 2018, eq. 9 and 10).

    Mean over the batch, without the factor gamma; a scalar that can be differentiated again. Call it outside
    of autocast: squared gradients overflow in float16. x is in float32 whatever the images are.

    Args:
        critic: as for `gradient_penalty`.
        images: (B, ...); no gradients flow into them.
    """
    x = images.detach().float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.float().flatten(1).square().sum(1).mean() / 2  # (B, ...) -> (B, N) -> (B,) -> ()


def gradient_norm(critic: Critic, x: Tensor) -> Tensor:
    """Returns the length of each sample's gradient of the critic's value, (B,). ``x`` must require gradients.

    The square root is kept off zero, where its own gradient is infinite.
    """
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.float().flatten(1).square().sum(1) + 1e-12).sqrt()  # (B, ...) -> (B, N) -> (B,)

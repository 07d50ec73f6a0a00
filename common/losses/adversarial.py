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

from common.capsules.margin import ABSENT, PRESENT, absent_margin, present_margin
from common.errors import UserError

Logits = Tensor | Sequence[Tensor]  # one map, or one for each scale of a multi-scale discriminator
Term = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of an adversarial game. Build one with `adversarial_loss`.

    Attributes:
        real, fake: what the discriminator pays for each real or generated logit.
        fooled: what the generator pays for each generated logit.
        threshold: the logit above which the discriminator takes an image for real, for its accuracy; None of
            a critic, whose values are heights without such a point.
    """

    real: Term
    fake: Term
    fooled: Term
    threshold: float | None = 0.0

    def discriminator_loss(self, logits_real: Logits, logits_fake: Logits) -> Tensor:
        """The sum of both terms, each the mean over logits, then scales; a scalar.

        Pix2pix halves it (Isola et al. 2017, section 3.3); that is a weight for the caller.
        """
        return _mean(self.real, logits_real) + _mean(self.fake, logits_fake)

    def generator_loss(self, logits_fake: Logits) -> Tensor:
        """The mean over logits, then scales; a scalar."""
        return _mean(self.fooled, logits_fake)


def adversarial_loss(kind: str = "bce") -> AdversarialLoss:
    """The adversarial loss of that name.

    Args:
        kind: ``bce`` (Goodfellow et al. 2014, non-saturating), ``least_squares`` (Mao et al. 2017, eq. 9
            without its halves), ``hinge`` (Miyato et al. 2018, eq. 16-17), ``wasserstein`` (Arjovsky et al.
            2017; needs a gradient penalty or clipped weights) or ``margin`` (CapsuleGAN, Jaiswal et al. 2018,
            eq. 3; for "logits" that are lengths of capsules, 0 to 1).
    Raises:
        UserError: no such loss.
    """
    if kind not in KINDS:
        raise UserError(f"adversarial loss '{kind}' is unknown; choose one of {', '.join(KINDS)}")
    return KINDS[kind]


def _mean(term: Term, logits: Logits) -> Tensor:
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
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
    "margin": AdversarialLoss(
        real=present_margin, fake=absent_margin, fooled=present_margin, threshold=(PRESENT + ABSENT) / 2
    ),
}

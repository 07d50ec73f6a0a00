"""Penalties on the critic's gradient with respect to its input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, mixing: Tensor | None = None, centre: float = 1.0
) -> Tensor:
    """WGAN-GP: E[(|grad D(x)| - centre)^2] at x between real and fake (Gulrajani et al. 2017, eq. 3).

    Mean over the batch, without the factor lambda; a scalar that can be differentiated again. Call it outside
    of autocast: squared gradients overflow in float16. x is in float32 whatever the images are.

    Args:
        critic: gives the values (B,) or (B, 1) of x, or their sum; for a patch critic the mean of a sample's
            logits, as in the loss. A conditional critic is passed with its condition bound,
            ``lambda x: critic(torch.cat([condition, x], 1))``. No batch norm: it ties the samples of a batch.
        real, fake: (B, ...) of the same shape; gradients flow into neither.
        mixing: (B,) in [0, 1], the share of ``real``; drawn from torch's generator when absent.
        centre: 1 for WGAN-GP, 0 for the zero-centred penalty (Thanh-Tung et al. 2019).
    """
    if mixing is None:
        mixing = torch.rand(real.shape[0], device=real.device)
    share = mixing.to(real.dtype).reshape(-1, *[1] * (real.ndim - 1))  # (B, 1, ..., 1)
    between = (share * real.detach() + (1 - share) * fake.detach()).float().requires_grad_(True)
    return (gradient_norm(critic, between) - centre).square().mean()


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
    """The length of each sample's gradient of the critic's value, (B,). ``x`` must require gradients.

    The square root is kept off zero, where its own gradient is infinite.
    """
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.float().flatten(1).square().sum(1) + 1e-12).sqrt()  # (B, ...) -> (B, N) -> (B,)

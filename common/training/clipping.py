"""Weights kept small: the first way to a critic whose slope is bounded (Arjovsky et al. 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from common.errors import UserError


def clip_weights(optimizer: Optimizer, bound: float | None) -> Optimizer:
    """The same optimiser, after whose every step its weights are brought into [-bound, bound].

    Its attribute ``weight_clip`` says the bound. It remembers nothing, so a resumed run needs no more than
    the weights.

    Args:
        bound: Arjovsky et al. take 0.01; None clips nothing.
    Raises:
        UserError: a bound that is not above 0.
    """
    if bound is None:
        return optimizer
    if not bound > 0:
        raise UserError(f"weight_clip {bound}: give a number above 0, or null for none")

    @torch.no_grad()
    def clip(stepped: Optimizer, *_arguments: Any) -> None:
        for group in stepped.param_groups:
            for weight in group["params"]:
                weight.clamp_(-bound, bound)

    optimizer.register_step_post_hook(clip)
    optimizer.weight_clip = bound  # type: ignore[attr-defined]  # for those who ask whether a critic is bounded
    return optimizer

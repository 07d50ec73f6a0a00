"""Dynamic routing between two layers of capsules (Sabour et al. 2017, procedure 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.capsules.contraction import agreement, weighted_sum
from common.capsules.squash import squash
from common.errors import UserError

GRADIENTS = ("last", "all")


class RoutingCapsules(nn.Module):
    """Input capsules vote for output capsules and listen to those that agree: (B, I, K) -> (B, J, D).

    The routing coefficients are the only thing kept for each pair of capsules, (B, J, I); predictions are
    never held (see `common.capsules.contraction`). Float32 whatever the precision around it: coefficients are
    exponentials of sums. Can be differentiated twice, as a gradient penalty needs.

    Args:
        in_capsules, in_size: I and K.
        out_capsules, out_size: J and D.
        iterations: of routing, at least 1.
        gradients: ``all``: through all iterations; ``last``: the coefficients are constants to the gradient,
            which flows through the last iteration's sum: half the work, but not the derivative of what comes
            out, so nothing for a gradient penalty.
        squashed: give the outputs lengths below 1; off for a critic without bounds (within the routing they
            always are squashed).
    Raises:
        UserError: no such gradients, or no iteration.
    """

    def __init__(
        self,
        in_capsules: int,
        in_size: int,
        out_capsules: int,
        out_size: int,
        iterations: int = 3,
        gradients: str = "all",
        squashed: bool = True,
    ) -> None:
        super().__init__()
        if gradients not in GRADIENTS:
            raise UserError(f"routing gradients {gradients!r}: choose {' or '.join(GRADIENTS)}")
        if iterations < 1:
            raise UserError(f"routing iterations {iterations}: at least 1 is needed")
        self.iterations, self.gradients, self.squashed = iterations, gradients, squashed
        self.weight = nn.Parameter(torch.empty(out_capsules, out_size, in_size, in_capsules))  # (J, D, K, I)
        # Equal coefficients then give outputs about as long as the inputs are.
        nn.init.normal_(self.weight, std=out_capsules / (in_capsules * out_size) ** 0.5)

    def forward(self, capsules: Tensor) -> Tensor:
        """Input capsules (B, I, K) -> output capsules (B, J, D)."""
        with torch.autocast(capsules.device.type, enabled=False):
            precise = capsules.to(torch.promote_types(capsules.dtype, torch.float32))
            inputs = precise.transpose(1, 2).contiguous()  # (B, K, I)
            outputs = route(inputs, self.weight.to(inputs.dtype), self.iterations, self.gradients)
            return squash(outputs) if self.squashed else outputs


def route(inputs: Tensor, weight: Tensor, iterations: int = 3, gradients: str = "all") -> Tensor:
    """Output capsules before their squash: (B, K, I) and (J, D, K, I) -> (B, J, D)."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and gradients == "all"):
        coefficients = routing_coefficients(inputs, weight, iterations)
    return weighted_sum(coefficients, inputs, weight)


def routing_coefficients(inputs: Tensor, weight: Tensor, iterations: int = 3) -> Tensor:
    """The coefficients of the last iteration, (B, J, I): over J they sum to 1."""
    logits = inputs.new_zeros(len(inputs), len(weight), inputs.shape[2])  # (B, J, I)
    for _ in range(iterations - 1):
        outputs = squash(weighted_sum(logits.softmax(1), inputs, weight))  # (B, J, D)
        logits = logits + agreement(inputs, weight, outputs)
    return logits.softmax(1)

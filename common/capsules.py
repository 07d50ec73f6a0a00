"""Capsule networks (Sabour et al. 2017): primary capsules, dynamic routing, margin loss.

Routing is written as contractions with derivatives of their own. Autograd through ``torch.einsum`` keeps
(B, J, K, I) per iteration: 1.8 times the time and 3 times the memory (16 samples, 1152 to 10 capsules); with
the predictions themselves it is 5 to 9 times the time and 23 times the memory (``make bench``).

A capsule layer predicts ``prediction[b, j, i, d] = sum_k weight[j, d, k, i] inputs[b, k, i]``: as many
numbers as samples x output capsules x input capsules x size. Routing only needs two sums over them, and both,
like all their derivatives of any order, are parts of one form that is linear in each of its four tensors::

    form = sum over b, j, i, k, d of coefficients[b, j, i] inputs[b, k, i] weight[j, d, k, i] outputs[b, j, d]

The derivative with respect to one of the four is a sum over the three others, computed by matrix products
for one output capsule at a time, so that nothing larger than the inputs is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import UserError

COEFFICIENTS, INPUTS, WEIGHT, OUTPUTS = range(4)


def weighted_sum(coefficients: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """Sums predictions with their routing coefficients (Sabour et al. 2017, equation 2).

    Args:
        coefficients: (B, J, I).
        inputs: (B, K, I), capsules of size K.
        weight: (J, D, K, I).
    Returns:
        (B, J, D). Can be differentiated any number of times.

    Example:
        >>> coefficients, inputs, weight = torch.rand(2, 3, 5), torch.rand(2, 4, 5), torch.rand(3, 6, 4, 5)
        >>> plain = torch.einsum("bji,bki,jdki->bjd", coefficients, inputs, weight)
        >>> torch.allclose(weighted_sum(coefficients, inputs, weight), plain)
        True
    """
    return _contracted(OUTPUTS, coefficients, inputs, weight, None)


def agreement(inputs: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """Scalar products of predictions and output capsules (procedure 1, line 7).

    Args:
        inputs, weight: as of `weighted_sum`.
        outputs: (B, J, D).
    Returns:
        (B, J, I). Can be differentiated any number of times.

    Example:
        >>> agreement(torch.rand(2, 4, 5), torch.rand(3, 6, 4, 5), torch.rand(2, 3, 6)).shape
        torch.Size([2, 3, 5])
    """
    return _contracted(COEFFICIENTS, None, inputs, weight, outputs)


class _Contraction(torch.autograd.Function):
    """The form's derivative with respect to tensor number ``missing``, given the three others."""

    @staticmethod
    def forward(ctx: Any, missing: int, *tensors: Tensor | None) -> Tensor:
        ctx.missing = missing
        ctx.save_for_backward(*tensors)
        return DERIVATIVES[missing](*(tensor for tensor in tensors if tensor is not None))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient takes the missing tensor's place; each of the three others is missing in turn."""
        given = list(ctx.saved_tensors)
        given[ctx.missing] = gradients[0].contiguous()
        wanted = [
            _contracted(place, *(None if other == place else given[other] for other in range(4)))
            if ctx.needs_input_grad[place + 1] and place != ctx.missing
            else None
            for place in range(4)
        ]
        return (None, *wanted)


def _contracted(missing: int, *tensors: Tensor | None) -> Tensor:
    total: Tensor = _Contraction.apply(missing, *tensors)
    return total


def _by_coefficients(inputs: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """(B, J, I)."""
    sums = inputs.new_empty(len(weight), len(inputs), inputs.shape[2])  # (J, B, I)
    for capsule, matrix in enumerate(weight):
        projected = _projected(outputs[:, capsule], matrix)
        torch.sum(projected.mul_(inputs), 1, out=sums[capsule])
    return sums.transpose(0, 1)


def _by_inputs(coefficients: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """(B, K, I)."""
    total = outputs.new_zeros(len(outputs), *weight.shape[2:])
    for capsule, matrix in enumerate(weight):
        total.addcmul_(_projected(outputs[:, capsule], matrix), coefficients[:, capsule, None])
    return total


def _by_weight(coefficients: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """(J, D, K, I)."""
    _, count, size = outputs.shape
    total = outputs.new_empty(count, size, *inputs.shape[1:])
    for capsule in range(count):
        weighted = (inputs * coefficients[:, capsule, None]).flatten(1)  # (B, K I)
        torch.mm(outputs[:, capsule].T, weighted, out=total[capsule].flatten(1))
    return total


def _by_outputs(coefficients: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """(B, J, D)."""
    total = inputs.new_empty(*weight.shape[:1], len(inputs), weight.shape[1])  # (J, B, D)
    for capsule, matrix in enumerate(weight):
        weighted = (inputs * coefficients[:, capsule, None]).flatten(1)  # (B, K I)
        torch.mm(weighted, matrix.flatten(1).T, out=total[capsule])
    return total.transpose(0, 1)


def _projected(outputs: Tensor, matrix: Tensor) -> Tensor:
    """One capsule's outputs (B, D) through its weight (D, K, I): (B, K, I)."""
    return (outputs @ matrix.flatten(1)).unflatten(1, matrix.shape[1:])


DERIVATIVES: dict[int, Callable[..., Tensor]] = {
    COEFFICIENTS: _by_coefficients,
    INPUTS: _by_inputs,
    WEIGHT: _by_weight,
    OUTPUTS: _by_outputs,
}


PRESENT, ABSENT = 0.9, 0.1
"""Lengths from which on, or up to which, the loss is 0."""
DOWN_WEIGHT = 0.5
"""Weight of absent classes, so that early learning does not shrink all capsules."""


def present_margin(lengths: Tensor) -> Tensor:
    """Loss of a capsule whose entity is present: (...) -> (...)."""
    return functional.relu(PRESENT - lengths).square()


def absent_margin(lengths: Tensor) -> Tensor:
    """Loss of a capsule whose entity is absent: (...) -> (...)."""
    return DOWN_WEIGHT * functional.relu(lengths - ABSENT).square()


def margin_loss(lengths: Tensor, target: Tensor) -> Tensor:
    """Margin loss (Sabour et al. 2017, equation 4): summed over classes, mean over the batch; a scalar.

    Args:
        lengths: (B, J) of the classes' capsules, 0 to 1.
        target: (B,) class indices.

    Example:
        >>> margin_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item()
        0.0
    """
    present = functional.one_hot(target, lengths.shape[1]).to(lengths.dtype)  # (B, J)
    terms = present * present_margin(lengths) + (1 - present) * absent_margin(lengths)
    return terms.sum(1).mean()


TINY = 1e-12
"""Keeps the root off zero, where its gradient is infinite."""


def squash(vectors: Tensor) -> Tensor:
    """s |s| / (1 + |s|^2) over the last dimension (Sabour et al. 2017, equation 1): (..., D) -> (..., D).

    A zero vector stays zero; gradients of any order are finite there.

    Example:
        >>> round(squash(torch.tensor([3.0, 4.0])).norm().item(), 4)  # 25 / 26
        0.9615
    """
    squared = vectors.square().sum(-1, keepdim=True)  # (..., 1)
    return vectors * ((squared + TINY).sqrt() / (1 + squared))


def lengths(capsules: Tensor) -> Tensor:
    """The lengths of capsules, with finite gradients at zero: (..., D) -> (...)."""
    return (capsules.square().sum(-1) + TINY).sqrt()


class PrimaryCapsules(nn.Module):
    """A convolution whose channels are read as capsules: (B, C, H, W) -> (B, maps h w, size), squashed.

    Sabour et al. 2017, section 4, take 32 maps of capsules of 8, a kernel of 9 and a stride of 2.

    Args:
        channels: C.
        maps: kinds of capsules at each place.
        size: of a capsule.
        kernel, stride, padding: of the convolution.

    Example:
        >>> PrimaryCapsules(channels=16, maps=4)(torch.randn(2, 16, 20, 20)).shape  # 4 maps of 6 x 6
        torch.Size([2, 144, 8])
    """

    def __init__(
        self,
        channels: int,
        maps: int = 32,
        size: int = 8,
        kernel: int = 9,
        stride: int = 2,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.maps, self.size = maps, size
        self.convolution = nn.Conv2d(channels, maps * size, kernel, stride, padding)
        # As large as the features are: a squash makes short capsules shorter still.
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="linear")

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) -> capsules (B, maps h w, size) of lengths below 1."""
        values = self.convolution(features)  # (B, maps size, h, w)
        values = values.unflatten(1, (self.maps, self.size)).flatten(3)  # (B, maps, size, h w)
        return squash(values.transpose(2, 3).flatten(1, 2))  # (B, maps h w, size)


GRADIENTS = ("last", "all")


class RoutingCapsules(nn.Module):
    """Dynamic routing from input to output capsules (Sabour et al. 2017): (B, I, K) -> (B, J, D).

    Only the routing coefficients (B, J, I) are kept for each pair of capsules, not the predictions (see
    `common.capsules`). Computes in float32 under autocast, since coefficients are exponentials of sums. Can
    be differentiated twice, as a gradient penalty needs.

    Args:
        in_capsules, in_size: I and K.
        out_capsules, out_size: J and D.
        iterations: of routing, at least 1.
        gradients: ``all``: through all iterations; ``last``: the coefficients are constants for the gradient,
            which is half the work but not the derivative of the output, so unfit for a gradient penalty.
        squashed: squash the outputs to lengths below 1; off for an unbounded critic (within the routing they
            are always squashed).
    Raises:
        UserError: no such gradients, or no iteration.

    Example:
        >>> layer = RoutingCapsules(in_capsules=32, in_size=8, out_capsules=2, out_size=16)
        >>> layer(torch.randn(4, 32, 8)).shape
        torch.Size([4, 2, 16])
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

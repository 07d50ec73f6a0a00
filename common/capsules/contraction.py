"""The sums of dynamic routing without the predictions that stand in them.

A capsule layer predicts ``prediction[b, j, i, d] = sum_k weight[j, d, k, i] inputs[b, k, i]``: as many
numbers as samples x output capsules x input capsules x size. Routing only ever needs two sums over them, and
both, as all their derivatives of any order, are parts of one form that is linear in each of its four
tensors::

    form = sum over b, j, i, k, d of coefficients[b, j, i] inputs[b, k, i] weight[j, d, k, i] outputs[b, j, d]

The derivative with respect to one of the four is a sum over the three others. Each such sum is done by matrix
products over one output capsule at a time, so that nothing larger than the inputs is ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS, INPUTS, WEIGHT, OUTPUTS = range(4)


def weighted_sum(coefficients: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """Predictions summed with their routing coefficients (Sabour et al. 2017, equation 2).

    Args:
        coefficients: (B, J, I).
        inputs: (B, K, I), capsules of size K.
        weight: (J, D, K, I).
    Returns:
        (B, J, D). Can be differentiated any number of times.
    """
    return _contracted(OUTPUTS, coefficients, inputs, weight, None)


def agreement(inputs: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """The scalar products of predictions and output capsules (procedure 1, line 7).

    Args:
        inputs, weight: as of `weighted_sum`.
        outputs: (B, J, D).
    Returns:
        (B, J, I). Can be differentiated any number of times.
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
        """Of each of the three: the gradient takes the missing one's place, and that one is missing."""
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

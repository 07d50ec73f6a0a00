"""Dense layers as plain arrays, and how to take them from a torch network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid")
# They change no value of a vector that is decoded.
WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Flatten, nn.Unflatten)


@dataclass(frozen=True)
class DenseLayer:
    """``activation(weight @ x + bias)``.

    Args:
        weight: (outputs, inputs) float32.
        bias: (outputs,) float32.
        activation: one of `ACTIVATIONS`.
        slope: of the negative side, for ``leaky_relu`` only.

    Raises:
        ValueError: the arrays do not fit together or the activation is unknown.
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str = "linear"
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"weight {self.weight.shape} and bias {self.bias.shape} are no dense layer")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])


def dense_layers(network: nn.Module) -> list[DenseLayer]:
    """The dense layers of a `torch.nn.Sequential` (nested ones too) of Linear layers and activations.

    Batch normalisation behind a Linear layer is folded into it, with its running statistics. Dropout and
    modules that only change shapes are left out.

    Raises:
        ValueError: another kind of module, or one that does not follow a Linear layer.
    """
    layers: list[DenseLayer] = []
    for module in _leaves(network):
        if isinstance(module, nn.Linear):
            layers.append(_linear(module))
        elif not isinstance(module, WITHOUT_EFFECT):
            if not layers or layers[-1].activation != "linear":
                raise ValueError(f"{type(module).__name__} does not follow a Linear layer")
            layers[-1] = _extended(layers[-1], module)
    return layers


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(module, nn.Sequential):
        yield module
        return
    for child in module:
        yield from _leaves(child)


def _linear(module: nn.Linear) -> DenseLayer:
    weight = _numpy(module.weight).astype(np.float32)
    bias = np.zeros(len(weight)) if module.bias is None else _numpy(module.bias)
    return DenseLayer(weight, bias.astype(np.float32))


def _extended(layer: DenseLayer, module: nn.Module) -> DenseLayer:
    """The layer with what follows it."""
    if isinstance(module, nn.BatchNorm1d):
        return _normalised(layer, module)
    if isinstance(module, nn.LeakyReLU):
        return replace(layer, activation="leaky_relu", slope=float(module.negative_slope))
    names = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if type(module) not in names:
        raise ValueError(f"{type(module).__name__} cannot be decoded in a page")
    return replace(layer, activation=names[type(module)])


def _normalised(layer: DenseLayer, module: nn.BatchNorm1d) -> DenseLayer:
    """Batch normalisation is a scale and a shift once it no longer learns."""
    if module.running_mean is None or module.running_var is None:
        raise ValueError("batch normalisation without running statistics cannot be folded")
    scale = 1 / np.sqrt(_numpy(module.running_var) + module.eps)
    bias = (layer.bias - _numpy(module.running_mean)) * scale
    if module.affine:
        scale = scale * _numpy(module.weight)
        bias = bias * _numpy(module.weight) + _numpy(module.bias)
    weight = layer.weight * scale[:, None]
    return replace(layer, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()

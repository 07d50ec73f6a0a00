"""Weights as 8-bit integers: a quarter of the size, one scale for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.explorer.layers import DenseLayer

LEVELS = 127
# Rounding errors grow on their way through the layers that follow. The first ones are tiny: they stay exact.
KEPT_EXACT = 16_384


@dataclass(frozen=True)
class PackedLayer:
    """A dense layer whose weight is ``values * scales[:, None]``.

    ``values`` is (outputs, inputs), int8 in [-127, 127] or float32 with scales of one; ``scales`` and
    ``bias`` are (outputs,) float32.
    """

    values: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    activation: str
    slope: float


def pack(layer: DenseLayer) -> PackedLayer:
    """The layer as it travels in the page: int8, but float32 up to 16384 weights."""
    if layer.weight.size <= KEPT_EXACT:
        values, scales = layer.weight.astype(np.float32), np.ones(layer.outputs, np.float32)
    else:
        values, scales = quantised(layer.weight)
    return PackedLayer(values, scales, layer.bias.astype(np.float32), layer.activation, layer.slope)


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, inputs) -> int8 values and float32 scales (outputs,): symmetric, each row over its range."""
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    values = np.rint(weight / scales[:, None]).clip(-LEVELS, LEVELS).astype(np.int8)
    return values, scales


def as_travelled(layers: Sequence[DenseLayer]) -> list[DenseLayer]:
    """The layers as the page has them: with weights that went through `pack`."""
    packed = [pack(layer) for layer in layers]
    weights = [part.values.astype(np.float32) * part.scales[:, None] for part in packed]
    return [replace(layer, weight=weight) for layer, weight in zip(layers, weights, strict=True)]

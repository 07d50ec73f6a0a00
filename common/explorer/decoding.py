"""Decoding in numpy: what the page does in JavaScript."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.explorer.layers import DenseLayer


def decode(layers: Sequence[DenseLayer], latents: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Images of the latents.

    Args:
        layers: the decoder.
        latents: (N, L).
        value_range: values that are shown black (0) and white (255); what lies outside is clipped.

    Returns:
        (N, S, S) uint8.
    """
    values = np.asarray(latents, np.float32)
    for layer in layers:
        values = activate(values @ layer.weight.T + layer.bias, layer)
    low, high = value_range
    grey = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    side = round(grey.shape[1] ** 0.5)
    return grey.reshape(len(grey), side, side)  # (N, S, S)


def activate(values: np.ndarray, layer: DenseLayer) -> np.ndarray:
    """The layer's activation."""
    match layer.activation:
        case "relu":
            return np.maximum(values, 0)
        case "leaky_relu":
            return np.where(values < 0, layer.slope * values, values)
        case "tanh":
            return np.tanh(values)
        case "sigmoid":
            return 1 / (1 + np.exp(-values))
    return values

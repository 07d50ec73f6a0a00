"""The page's decoder in NumPy, which tests compare the page and the networks with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.explorer.data import DenseLayer, quantize_layer


def quantized_layers(layers: Sequence[DenseLayer]) -> list[DenseLayer]:
    """Returns the layers with the quantized weights that the page has."""
    parts = [quantize_layer(layer) for layer in layers]
    weights = [values.astype(np.float32) * scales[:, None] for values, scales in parts]
    return [replace(layer, weight=weight) for layer, weight in zip(layers, weights, strict=True)]


def decode(layers: Sequence[DenseLayer], latents: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Decodes latents in NumPy, as the page does in JavaScript.

    Args:
        layers: the decoder.
        latents: (N, L).
        value_range: values shown black (0) and white (255); others are clipped.

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
    """Applies the layer's activation."""
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

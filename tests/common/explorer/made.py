"""A made explorer for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.explorer.explorer import DenseLayer, Explorer, quantize_layer

SIDE = 4


def made_explorer(**changes: Any) -> Explorer:
    """Three points of two classes in two dimensions, and a decoder of two layers to 4 x 4 pixels."""
    parts: dict[str, Any] = {
        "points": np.array([[0, 0], [1, 2], [-3, 1]], np.float32),
        "classes": np.array([0, 1, 1]),
        "class_names": ["real", "generated"],
        "names": ["first", "second", "third"],
        "thumbnails": np.arange(3, dtype=np.uint8)[:, None, None] * np.full((1, 8, 8), 100, np.uint8),
        "decoder": [
            DenseLayer(np.eye(3, 2, dtype=np.float32), np.zeros(3, np.float32), "relu"),
            DenseLayer(np.ones((SIDE**2, 3), np.float32), np.zeros(SIDE**2, np.float32), "tanh"),
        ],
        "image_size": SIDE,
        "value_range": (-1.0, 1.0),
    }
    return Explorer(**{**parts, **changes})


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

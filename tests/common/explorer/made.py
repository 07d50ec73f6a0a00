"""A made explorer for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.explorer.data import DenseLayer, Explorer

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

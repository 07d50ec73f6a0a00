"""Weights as 8-bit integers."""

from __future__ import annotations

import numpy as np

from common.explorer import DenseLayer
from common.explorer.quantisation import as_travelled, pack, quantised
from common.random import generator


def test_each_row_has_its_own_scale() -> None:
    weight = np.array([[1.0, -2.0, 0.5], [0.01, 0.004, 0.0], [0, 0, 0]], np.float32)
    values, scales = quantised(weight)
    assert values.dtype == np.int8
    assert values.tolist() == [[64, -127, 32], [127, 51, 0], [0, 0, 0]]
    np.testing.assert_allclose(scales, [2 / 127, 0.01 / 127, 1], rtol=1e-6)


def test_error_is_at_most_half_a_step() -> None:
    weight = generator(0, "weight").normal(size=(256, 80)).astype(np.float32)
    (layer,) = as_travelled([DenseLayer(weight, np.zeros(256, np.float32))])
    steps = np.abs(weight).max(axis=1) / 127
    assert (np.abs(layer.weight - weight) <= 0.501 * steps[:, None]).all()
    assert np.abs(layer.weight - weight).max() > 0


def test_small_layers_stay_exact() -> None:
    weight = generator(0, "weight").normal(size=(128, 128)).astype(np.float32)
    packed = pack(DenseLayer(weight, np.zeros(128, np.float32), "leaky_relu", 0.2))
    assert packed.values.dtype == np.float32
    assert np.array_equal(packed.values, weight)
    assert (packed.scales == 1).all()
    assert (packed.activation, packed.slope) == ("leaky_relu", 0.2)

"""Dense layers out of torch networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.explorer import DenseLayer, decode, dense_layers


def made_network() -> nn.Sequential:
    """A decoder with all that is understood, its running statistics away from their start."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.3))
    plain = nn.BatchNorm1d(6, affine=False)
    network = nn.Sequential(
        block, nn.Dropout(0.5), nn.Linear(8, 6, bias=False), plain, nn.ReLU(), nn.Linear(6, 5), nn.Sigmoid()
    )
    network(torch.randn(64, 3) * 3 + 1)  # in training mode: the statistics follow
    nn.init.uniform_(block[1].weight)
    nn.init.uniform_(block[1].bias)
    return network.eval()


def test_layers_compute_what_the_network_does() -> None:
    network = made_network()
    layers = dense_layers(network)
    assert [(layer.inputs, layer.outputs, layer.activation) for layer in layers] == [
        (3, 8, "leaky_relu"),
        (8, 6, "relu"),
        (6, 5, "sigmoid"),
    ]
    latents = torch.randn(7, 3)
    values = latents.numpy()
    for layer in layers:
        values = values @ layer.weight.T + layer.bias
        values = {
            "leaky_relu": np.where(values < 0, 0.3 * values, values),
            "relu": values.clip(0),
            "sigmoid": 1 / (1 + np.exp(-values)),
        }[layer.activation]
    with torch.inference_mode():
        np.testing.assert_allclose(values, network(latents).numpy(), atol=1e-6)


def test_decoding_matches_torch() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 9), nn.Tanh(), nn.Unflatten(1, (1, 3, 3))
    )
    latents = torch.tensor([[0.5, -2.0], [3.0, 1.0]])
    with torch.inference_mode():
        expected = ((network(latents).clamp(-0.5, 0.5) + 0.5) * 255).round().to(torch.uint8)[:, 0]
    assert np.array_equal(decode(dense_layers(network), latents.numpy(), (-0.5, 0.5)), expected.numpy())


def test_decoding_clips_and_orders_rows_first() -> None:
    layer = DenseLayer(np.array([[0.0], [1], [2], [-9]], np.float32), np.array([0.5, 0, 0, 0], np.float32))
    assert decode([layer], np.array([[0.4]]), (0, 1)).tolist() == [[[128, 102], [204, 0]]]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "ReLU does not follow a Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()), "Tanh does not follow a Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "Softmax cannot be decoded"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), "running statistics"),
    ],
)
def test_what_cannot_be_decoded_is_named(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_layers(network)


def test_arrays_that_are_no_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="no dense layer"):
        DenseLayer(np.zeros((3, 2), np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="activation 'gelu'"):
        DenseLayer(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), "gelu")

"""What an explorer accepts."""

from __future__ import annotations

import base64
import gzip
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from common.errors import UserError
from common.explorer.data import (
    Atlas,
    DenseLayer,
    dense_layers,
    grid_sheet,
    jpeg,
    pack,
    quantize,
    quantize_layer,
    square_sheet,
)
from common.rng import make_rng
from tests.common.explorer.made import made_explorer
from tests.common.explorer.reference import decode, quantized_layers


def test_dimensions_are_those_of_the_points() -> None:
    assert made_explorer().dimensions == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((3, 5)), "latent of 5 values cannot be shown"),
        (np.zeros((5001, 2)), "5001 points"),
        (np.array([[0, np.nan]] * 3), "not finite"),
    ],
)
def test_latents_that_cannot_be_shown(points: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made_explorer(points=points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((0, 2))}, "points are"),
        ({"classes": np.array([0, 1])}, "one class a point"),
        ({"classes": np.array([0, 1, 2])}, "classes index class_names"),
        ({"classes": np.array([0.0, 1, 1])}, "classes are integers"),
        ({"class_names": list("abcdefg")}, "one to 6 classes"),
        ({"names": ["only"]}, "1 names for 3 points"),
        ({"thumbnails": np.zeros((3, 8, 9), np.uint8)}, "thumbnails are"),
        ({"thumbnails": np.zeros((3, 8, 8))}, "thumbnails are uint8"),
        ({"value_range": (1.0, -1.0)}, "value range"),
        ({"image_size": 5}, "the decoder gives 16 values"),
        ({"points": np.zeros((3, 3))}, "the decoder takes 2 values"),
        ({"decoder": []}, "at least one layer"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made_explorer(**changes)


def test_layers_must_follow_each_other() -> None:
    first, last = made_explorer().decoder
    with pytest.raises(ValueError, match="do not follow each other"):
        made_explorer(decoder=[first, first, last])


@pytest.mark.parametrize(
    ("shape", "corners", "message"),
    [
        ((2, 2, 4, 5), 4, "atlas is"),
        ((1, 2, 4, 4), 4, "at least 2 x 2"),
        ((2, 2, 4, 4), 3, "four corners"),
    ],
)
def test_atlas_that_does_not_fit(shape: tuple[int, ...], corners: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Atlas(np.zeros(shape, np.uint8), ["corner"] * corners)


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


def test_each_row_has_its_own_scale() -> None:
    weight = np.array([[1.0, -2.0, 0.5], [0.01, 0.004, 0.0], [0, 0, 0]], np.float32)
    values, scales = quantize(weight)
    assert values.dtype == np.int8
    assert values.tolist() == [[64, -127, 32], [127, 51, 0], [0, 0, 0]]
    np.testing.assert_allclose(scales, [2 / 127, 0.01 / 127, 1], rtol=1e-6)


def test_error_is_at_most_half_a_step() -> None:
    weight = make_rng(0, "weight").normal(size=(256, 80)).astype(np.float32)
    (layer,) = quantized_layers([DenseLayer(weight, np.zeros(256, np.float32))])
    steps = np.abs(weight).max(axis=1) / 127
    assert (np.abs(layer.weight - weight) <= 0.501 * steps[:, None]).all()
    assert np.abs(layer.weight - weight).max() > 0


def test_small_layers_stay_exact() -> None:
    weight = make_rng(0, "weight").normal(size=(128, 128)).astype(np.float32)
    packed = quantize_layer(DenseLayer(weight, np.zeros(128, np.float32), "leaky_relu", 0.2))
    assert packed.values.dtype == np.float32
    assert np.array_equal(packed.values, weight)
    assert (packed.scales == 1).all()
    assert (packed.activation, packed.slope) == ("leaky_relu", 0.2)


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_everything_is_described() -> None:
    samples = np.full((3, 2, 8, 8), 50, np.uint8)
    payload = pack(made_explorer(atlas=Atlas(samples, list("abcd"), "a plane"), title="T", notes="N"))
    described = json.loads(json.dumps(payload.description))
    assert described["atlas"] == {
        "rows": 3,
        "columns": 2,
        "size": 8,
        "corners": ["a", "b", "c", "d"],
        "notes": "a plane",
    }
    assert described["layers"] == [
        {"inputs": 2, "outputs": 3, "type": "float32", "activation": "relu", "slope": 0.0},
        {"inputs": 3, "outputs": 16, "type": "float32", "activation": "tanh", "slope": 0.0},
    ]
    assert described["classes"] == [0, 1, 1]
    assert described["thumbnails"] == {"size": 8, "columns": 2}
    assert (described["title"], described["notes"], described["valueRange"]) == ("T", "N", [-1.0, 1.0])
    assert set(payload.blocks) == {"points", "thumbnails", "atlas"} | {
        f"layer{index}-{part}" for index in (0, 1) for part in ("values", "scales", "bias")
    }


def test_arrays_travel_bit_by_bit() -> None:
    explorer = made_explorer()
    blocks = pack(explorer).blocks
    assert unpacked(blocks["points"]) == explorer.points.astype("<f4").tobytes()
    assert unpacked(blocks["layer0-values"]) == explorer.decoder[0].weight.tobytes()


def test_big_endian_points_travel_as_little_endian() -> None:
    points = made_explorer().points.astype(">f8")
    assert unpacked(pack(made_explorer(points=points)).blocks["points"]) == points.astype("<f4").tobytes()


def test_thumbnails_are_one_picture() -> None:
    blocks = pack(made_explorer()).blocks
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(blocks["thumbnails"]))))
    assert sheet.shape == (16, 16)
    assert sheet[4, 12] == 100
    assert sheet[12, 4] == 200


def test_same_data_same_text() -> None:
    assert pack(made_explorer()) == pack(made_explorer())


def test_square_sheet_is_filled_row_by_row() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), np.uint8)
    pictures[3, 0, 1] = 99
    sheet, columns = square_sheet(pictures)
    assert columns == 3
    assert sheet.tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 99, 4, 4, 0, 0],
        [3, 3, 4, 4, 0, 0],
    ]


def test_grid_sheet_keeps_rows_and_columns() -> None:
    pictures = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    sheet = grid_sheet(pictures)
    assert sheet.shape == (4, 6)
    assert np.array_equal(sheet[2:4, 4:6], pictures[1, 2])


def test_jpeg_is_grey_and_close() -> None:
    sheet = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
    picture = Image.open(io.BytesIO(jpeg(sheet)))
    assert picture.info["comment"].startswith(b"synthetic: a sheet")
    assert (picture.mode, picture.size) == ("L", (48, 64))
    assert np.abs(np.asarray(picture).astype(int) - sheet).max() <= 4


def test_sheets_that_browsers_do_not_decode_are_refused() -> None:
    with pytest.raises(UserError, match="17000 x 8 pixels together"):
        jpeg(np.zeros((17000, 8), np.uint8))

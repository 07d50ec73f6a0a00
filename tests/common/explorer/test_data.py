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
    jpeg,
    pack,
    quantize_layer,
)
from common.rng import make_rng
from tests.common.explorer.made import made_explorer
from tests.common.explorer.reference import activate, decode, quantized_layers


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
        ({"classes": np.array([0, 1, 2])}, "2 class names"),
        ({"class_names": list("abcdefg")}, "7 class names: at most 6"),
        ({"names": ["only"]}, "3 points need as many"),
        ({"image_size": 5}, "maps 2 values to 16"),
        ({"points": np.zeros((3, 3))}, "maps 2 values to 16"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made_explorer(**changes)
    first, last = made_explorer().decoder
    with pytest.raises(ValueError, match="do not follow each other"):
        made_explorer(decoder=[first, first, last])


def test_layers_compute_what_the_network_does() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.3))
    network = nn.Sequential(block, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Sigmoid())
    layers = dense_layers(network)
    assert [layer.activation for layer in layers] == ["leaky_relu", "relu", "sigmoid"]
    latents = torch.randn(7, 3)
    values = latents.numpy()
    for layer in layers:
        values = activate(values @ layer.weight.T + layer.bias, layer)
    with torch.inference_mode():
        expected = network(latents)
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-6)
    layer = DenseLayer(np.array([[0.0], [1], [2], [-9]], np.float32), np.array([0.5, 0, 0, 0], np.float32))
    assert decode([layer], np.array([[0.4]]), (0, 1)).tolist() == [[[128, 102], [204, 0]]]  # rows first


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()),
        nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)),
    ],
)
def test_what_cannot_be_decoded_is_named(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"(ReLU|Tanh|Softmax): a page decodes Linear layers"):
        dense_layers(network)


def test_each_row_has_its_own_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.explorer.data.KEPT_EXACT", 0)
    weight = np.array([[1.0, -2.0, 0.5], [0.01, 0.004, 0.0], [0, 0, 0]], np.float32)
    values, scales = quantize_layer(DenseLayer(weight, np.zeros(3, np.float32)))
    assert values.dtype == np.int8
    assert values.tolist() == [[64, -127, 32], [127, 51, 0], [0, 0, 0]]
    np.testing.assert_allclose(scales, [2 / 127, 0.01 / 127, 1], rtol=1e-6)
    (layer,) = quantized_layers([DenseLayer(weight, np.zeros(3, np.float32))])
    assert (np.abs(layer.weight - weight) <= 0.501 * scales[:, None]).all()  # half a step


def test_small_layers_stay_exact() -> None:
    weight = make_rng(0, "weight").normal(size=(128, 128)).astype(np.float32)
    values, scales = quantize_layer(DenseLayer(weight, np.zeros(128, np.float32)))
    assert values.dtype == np.float32 and np.array_equal(values, weight) and (scales == 1).all()


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_everything_is_described() -> None:
    samples = np.full((3, 2, 8, 8), 50, np.uint8)
    payload = pack(made_explorer(atlas=Atlas(samples, list("abcd"), "a plane"), title="T", notes="N"))
    described = json.loads(json.dumps(payload.description))
    atlas = {"rows": 3, "columns": 2, "size": 8, "corners": list("abcd"), "notes": "a plane"}
    assert described["atlas"] == atlas
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
    assert pack(made_explorer(points=explorer.points.astype(">f8"))).blocks == blocks  # always little-endian


def test_thumbnails_are_one_picture() -> None:
    blocks = pack(made_explorer()).blocks
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(blocks["thumbnails"]))))
    assert sheet.shape == (16, 16)
    assert sheet[4, 12] == 100
    assert sheet[12, 4] == 200


def test_sheet_is_filled_row_by_row() -> None:
    pictures = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 64).reshape(5, 8, 8)
    picture = Image.open(io.BytesIO(jpeg(pictures, 3)))
    assert picture.info["comment"].startswith(b"synthetic: a sheet")
    assert (picture.mode, picture.size) == ("L", (24, 16))
    expected = [[0, 50, 100], [150, 200, 0]]
    assert np.abs(np.asarray(picture)[4::8, 4::8].astype(int) - expected).max() <= 4


def test_sheets_that_browsers_do_not_decode_are_refused() -> None:
    with pytest.raises(UserError, match="17000 x 8 pixels together"):
        jpeg(np.zeros((2125, 8, 8), np.uint8), 1)

"""The explorer's data as text."""

from __future__ import annotations

import base64
import gzip
import io
import json

import numpy as np
from PIL import Image

from common.explorer import Atlas
from common.explorer.packing import packed
from tests.common.explorer.made import made_explorer


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_everything_is_described() -> None:
    samples = np.full((3, 2, 8, 8), 50, np.uint8)
    payload = packed(made_explorer(atlas=Atlas(samples, list("abcd"), "a plane"), title="T", notes="N"))
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
    blocks = packed(explorer).blocks
    assert unpacked(blocks["points"]) == explorer.points.astype("<f4").tobytes()
    assert unpacked(blocks["layer0-values"]) == explorer.decoder[0].weight.tobytes()


def test_big_endian_points_travel_as_little_endian() -> None:
    points = made_explorer().points.astype(">f8")
    assert unpacked(packed(made_explorer(points=points)).blocks["points"]) == points.astype("<f4").tobytes()


def test_thumbnails_are_one_picture() -> None:
    blocks = packed(made_explorer()).blocks
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(blocks["thumbnails"]))))
    assert sheet.shape == (16, 16)
    assert sheet[4, 12] == 100
    assert sheet[12, 4] == 200


def test_same_data_same_text() -> None:
    assert packed(made_explorer()) == packed(made_explorer())

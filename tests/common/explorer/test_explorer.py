from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from PIL import Image
from plotly.offline import get_plotlyjs
from torch import nn

from common.errors import UserError
from common.explorer import explorer as writing
from common.explorer.explorer import (
    PAGE,
    Atlas,
    DenseLayer,
    dense_layers,
    explore,
    jpeg,
    pack,
    page,
    quantize_layer,
    write_explorer,
)
from common.rng import make_rng
from tests.common.explorer.made import activate, decode, made_explorer, quantized_layers


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
    monkeypatch.setattr("common.explorer.explorer.KEPT_EXACT", 0)
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


def without_library(text: str) -> str:
    return text.replace(get_plotlyjs(), "")


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    written = write_explorer(tmp_path / "new" / "explorer.html", made_explorer())
    assert written == tmp_path / "new" / "explorer.html"
    text = written.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.endswith("</html>\n")
    assert get_plotlyjs() in text
    assert [path.name for path in written.parent.iterdir()] == ["explorer.html"]


def test_nothing_is_fetched() -> None:
    text = without_library(page(pack(made_explorer())))
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text) == []
    sources = [text, *(script.read_text() for script in PAGE.glob("*.js"))]
    loading = r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|XMLHttpRequest|@import"
    assert not [found for source in sources for found in re.findall(loading, source)]
    assert "default-src 'none'" in text


def test_texts_cannot_end_their_element() -> None:
    names = ["</script><script>alert(1)</script>", "<!--", "third"]
    text = without_library(page(pack(made_explorer(names=names, title="<b>&</b>"))))
    assert "alert(1)</script>" not in text
    assert "<title>&lt;b&gt;&amp;&lt;/b&gt;</title>" in text
    description = re.search(r'<script type="application/json" id="description">(.*?)</script>', text, re.S)
    assert description is not None
    assert json.loads(description[1])["names"] == names


def test_every_module_that_is_imported_is_there() -> None:
    scripts = {f"explorer/{path.name}": path.read_text() for path in PAGE.glob("*.js")}
    text = without_library(page(pack(made_explorer())))
    imported = {
        name for source in (text, *scripts.values()) for name in re.findall(r'"(explorer/\w+\.js)";', source)
    }
    assert imported == set(scripts)  # and none is there for nothing


def test_too_large_a_file_says_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGEST_FILE", 1_000_000)
    with pytest.raises(UserError, match=r"explorer\.html: would have .* MB \(decoder 0\.0 MB, thumbnails"):
        write_explorer(tmp_path / "explorer.html", made_explorer())
    assert list(tmp_path.iterdir()) == []


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_and_marks_are_readable() -> None:
    colours = dict(re.findall(r"--(\S+): (#[0-9a-f]{6});", (PAGE / "style.css").read_text()))
    for ground in (colours["paper"], colours["ground"], colours["soft"]):
        for text in ("ink", "muted", "accent"):
            assert contrast(colours[text], ground) >= 4.5, (text, ground)
    for badge in ("end-a", "end-b", "accent"):
        assert contrast(colours[badge], "#ffffff") >= 4.5
    marks = re.findall(r'colour: "(#[0-9a-f]{6})"', (PAGE / "drawing.js").read_text())
    assert len(set(marks)) == 6
    assert all(contrast(mark, "#ffffff") >= 3 for mark in marks)


def test_settings_get_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "configs" / "explore.yaml"
    config.parent.mkdir()
    config.touch()
    seen: dict[str, Any] = {}
    monkeypatch.setattr(monai.bundle, "run", lambda **given: seen.update(given))
    settings = {"seed": "3", "plane_seeds": "1,2,3", "output": "a.html", "plane_class": "null"}
    explore(tmp_path, settings)
    overrides = {"seed": 3, "plane_seeds": "1,2,3", "output": "a.html", "plane_class": None}
    assert seen == {"run_id": "explorer", "config_file": str(config), **overrides}


def test_a_folder_without_an_explorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config; --bundle takes the folder of a bundle"):
        explore(tmp_path, {})

"""The page: our sources in ``page/``, the plotting library and the data, put into one HTML file."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import monai.bundle
import numpy as np
import yaml
from plotly.offline import get_plotlyjs

from common.errors import UserError
from common.explorer.data import DenseLayer, Explorer, Payload, packed
from common.files import atomic_write

PAGE = Path(__file__).parent / "page"
LARGEST_FILE = 25_000_000  # bytes: what a mail server or a browser on a phone still takes


def write_explorer(path: str | os.PathLike[str], explorer: Explorer) -> Path:
    """Writes the explorer as one HTML file that opens from disk and asks nothing of a network, atomically.

    Returns:
        The file's path.

    Raises:
        UserError: the file would be larger than 25 MB, or cannot be written.
    """
    target = Path(path)
    payload = packed(explorer)
    text = page(payload)
    size = len(text.encode())
    if size > LARGEST_FILE:
        raise UserError(f"{target}: {_too_large(size, payload)}")
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page(payload: Payload) -> str:
    """The whole HTML text. The template is filled in one pass: what is put in is not searched for marks."""
    return Template(_source("index.html")).substitute(
        title=html.escape(payload.description["title"]),
        style=_source("style.css"),
        library=get_plotlyjs(),
        modules=_inside_script({"imports": _modules()}),
        description=_inside_script(payload.description),
        blocks="\n".join(_block(name, text) for name, text in payload.blocks.items()),
    )


def _modules() -> dict[str, str]:
    """An import map: a module has an address of its own only if its text is part of it."""
    scripts = sorted(PAGE.glob("*.js"))
    return {f"explorer/{script.name}": _address(script.read_bytes()) for script in scripts}


def _address(script: bytes) -> str:
    return "data:text/javascript;charset=utf-8;base64," + base64.b64encode(script).decode("ascii")


def _block(name: str, text: str) -> str:
    return f'<script type="text/plain" id="block-{name}">{text}</script>'


def _inside_script(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _source(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _too_large(size: int, payload: Payload) -> str:
    parts = {"decoder": 0, "thumbnails": 0, "atlas": 0}
    for name, text in payload.blocks.items():
        part = "decoder" if name.startswith("layer") else name
        parts[part] = parts.get(part, 0) + len(text)
    listed = ", ".join(f"{name} {length / 1e6:.1f} MB" for name, length in parts.items() if name != "points")
    return (
        f"would have {size / 1e6:.1f} MB ({listed}), {LARGEST_FILE / 1e6:.0f} MB is the most; "
        "take fewer or smaller thumbnails and atlas samples, or train a smaller autoencoder"
    )


CONFIG = Path("configs") / "explore.yaml"
RUN_ID = "explorer"


def explore(bundle: str | os.PathLike[str], settings: Mapping[str, str]) -> None:
    """Runs ``explorer`` of the bundle's ``configs/explore.yaml``.

    Args:
        bundle: the bundle's folder.
        settings: of the config, as typed: numbers, true, false and null have their meaning.
    Raises:
        UserError: no bundle with such a config there.
    """
    file = Path(bundle) / CONFIG
    if not file.is_file():
        raise UserError(
            f"{file}: no such config; --bundle takes the folder of a bundle with a latent explorer"
        )
    overrides: dict[str, Any] = {name: yaml.safe_load(text) for name, text in settings.items()}
    monai.bundle.run(run_id=RUN_ID, config_file=str(file.resolve()), **overrides)


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

"""The explorer's HTML file: the sources in ``page/``, the plotting library and the data in one file."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import monai.bundle
import yaml
from plotly.offline import get_plotlyjs

from common.errors import UserError
from common.explorer.data import Explorer, Payload, pack
from common.files import atomic_write

PAGE = Path(__file__).parent / "page"
LARGEST_FILE = 25_000_000
"""Bytes that mail servers and browsers on phones still take."""
CONFIG = Path("configs") / "explore.yaml"
RUN_ID = "explorer"


def write_explorer(path: str | os.PathLike[str], explorer: Explorer) -> Path:
    """Writes the explorer, atomically, as one HTML file that needs no network; returns its path.

    Raises:
        UserError: the file would be larger than 25 MB, or cannot be written.

    Example: ``write_explorer("map.html", explorer)`` with the `common.explorer.data.Explorer` shown there.
    """
    target = Path(path)
    payload = pack(explorer)
    text = page(payload)
    size = len(text.encode())
    if size > LARGEST_FILE:
        raise UserError(f"{target}: {_too_large(size, payload)}")
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page(payload: Payload) -> str:
    """Returns the HTML text.

    The template is filled in one pass by `string.Template`: the plotting library and the data, 4 MB and more,
    are not parsed as a template.
    """
    # In a single file a module can have no other address than a data URL, which the import map names.
    scripts = {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(PAGE.glob("*.js"))}
    address = "data:text/javascript;charset=utf-8;base64,"
    modules = {"imports": {f"explorer/{name}": address + text for name, text in scripts.items()}}
    blocks = [
        f'<script type="text/plain" id="block-{name}">{text}</script>'
        for name, text in payload.blocks.items()
    ]
    return Template(_source("index.html")).substitute(
        title=html.escape(payload.description["title"]),
        style=_source("style.css"),
        library=get_plotlyjs(),
        modules=_script_json(modules),
        description=_script_json(payload.description),
        blocks="\n".join(blocks),
    )


def _script_json(value: object) -> str:
    """Returns JSON that cannot end the script element that contains it."""
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


def explore(bundle: str | os.PathLike[str], settings: Mapping[str, str]) -> None:
    """Runs ``explorer`` of a bundle's ``configs/explore.yaml``.

    Args:
        bundle: the bundle's folder.
        settings: of the config, as text from the command line.
    Raises:
        UserError: the folder has no such config.
    """
    file = Path(bundle) / CONFIG
    if not file.is_file():
        raise UserError(
            f"{file}: no such config; --bundle takes the folder of a bundle with a latent explorer"
        )
    overrides: dict[str, Any] = {name: yaml.safe_load(text) for name, text in settings.items()}
    monai.bundle.run(run_id=RUN_ID, config_file=str(file.resolve()), **overrides)

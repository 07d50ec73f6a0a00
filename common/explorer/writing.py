"""The page: our sources in ``page/``, the plotting library and the data, put into one HTML file."""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from common.errors import UserError
from common.explorer.data import Explorer
from common.explorer.packing import Payload, packed
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

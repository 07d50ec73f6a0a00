"""The latent explorer: an interactive map of a latent space as one HTML file that needs no network.

`Explorer` holds the points, thumbnails, decoder and atlas; `write_explorer` puts them, a page (``page/``) and
the plotting library into one file. It is independent of training and of CT.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import monai.bundle
import numpy as np
import yaml
from PIL import Image
from plotly.offline import get_plotlyjs
from skimage.util import montage
from torch import nn

from common.errors import UserError
from common.files import atomic_write
from common.provenance import SHEET

ACTIVATIONS = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
"""Activations that the page's decoder knows, besides ``linear``."""
MOST_POINTS = 5000
MOST_CLASSES = 6
LEVELS = 127
KEPT_EXACT = 16_384
"""Number of weights up to which a layer stays float32: errors of the tiny first layers would grow later."""
LONGEST_SIDE = 16_384
"""Pixels: browsers on phones decode no longer pictures."""
QUALITY = 88


@dataclass(frozen=True)
class DenseLayer:
    """A dense layer, ``activation(weight @ x + bias)``.

    Args:
        weight: (outputs, inputs) float32.
        bias: (outputs,) float32.
        activation: ``linear`` or a value of `ACTIVATIONS`.
        slope: slope of the negative side, for ``leaky_relu`` only.
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str = "linear"
    slope: float = 0.0

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])


def dense_layers(network: nn.Module) -> list[DenseLayer]:
    """Returns the dense layers of a (nested) `torch.nn.Sequential` of Linear layers and activations.

    Raises:
        ValueError: another kind of module, or an activation that does not follow a Linear layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 16))
        >>> [(layer.inputs, layer.outputs, layer.activation) for layer in dense_layers(network)]
        [(2, 8, 'relu'), (8, 16, 'linear')]
    """
    layers: list[DenseLayer] = []
    for module in _leaves(network):
        if isinstance(module, nn.Linear):
            weight, bias = (value.detach().cpu().float().numpy() for value in (module.weight, module.bias))
            layers.append(DenseLayer(weight, bias))
        elif type(module) not in ACTIVATIONS or not layers or layers[-1].activation != "linear":
            raise ValueError(
                f"{type(module).__name__}: a page decodes Linear layers, each with an activation"
            )
        else:
            slope = float(getattr(module, "negative_slope", 0.0))
            layers[-1] = replace(layers[-1], activation=ACTIVATIONS[type(module)], slope=slope)
    return layers


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(module, nn.Sequential):
        yield module
        return
    for child in module:
        yield from _leaves(child)


@dataclass(frozen=True)
class Atlas:
    """Samples on a regular grid over a plane of a latent space.

    Args:
        samples: (R, C, T, T) uint8, rows downwards and columns to the right; at least 2 x 2 of them.
        corners: captions of the samples at the top left, top right, bottom left and bottom right.
        notes: a sentence or two on the plane.
    """

    samples: np.ndarray
    corners: Sequence[str]
    notes: str = ""


@dataclass(frozen=True)
class Explorer:
    """Points of a latent space of two or three dimensions, their images, and a decoder.

    Args:
        points: (N, 2) or (N, 3) latent coordinates, finite, N <= 5000.
        classes: (N,) integers that index ``class_names``.
        class_names: one to six names, for the legend.
        names: N captions.
        thumbnails: (N, T, T) uint8.
        decoder: dense layers from the latent (2 or 3 values) to ``image_size`` ** 2 values, rows first.
        image_size: side of the decoded images in pixels.
        value_range: the decoder's values that are shown black and white.
        atlas: a second view, or None.
        title: the page's title.
        notes: a sentence or two on the origin of the data.

    Raises:
        UserError: the latent has another size, values that are not finite, or too many points.
        ValueError: the parts do not fit together.

    Example:
        >>> explorer = Explorer(
        ...     points=np.zeros((3, 2), np.float32),
        ...     classes=np.zeros(3, int),
        ...     class_names=["real"],
        ...     names=["a", "b", "c"],
        ...     thumbnails=np.zeros((3, 8, 8), np.uint8),
        ...     decoder=dense_layers(nn.Sequential(nn.Linear(2, 64), nn.Tanh())),
        ...     image_size=8,
        ...     value_range=(-1.0, 1.0),
        ... )
        >>> explorer.dimensions, sorted(pack(explorer).blocks)[:2]
        (2, ['layer0-bias', 'layer0-scales'])
    """

    points: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    names: Sequence[str]
    thumbnails: np.ndarray
    decoder: Sequence[DenseLayer]
    image_size: int
    value_range: tuple[float, float]
    atlas: Atlas | None = None
    title: str = "Latent explorer"
    notes: str = ""

    def __post_init__(self) -> None:
        count, size = self.points.shape
        if size not in (2, 3):
            raise UserError(f"explorer: a latent of {size} values cannot be shown; train with 2 or 3")
        if count > MOST_POINTS:
            raise UserError(
                f"explorer: {count} points are more than a page shows; take at most {MOST_POINTS}"
            )
        if not np.isfinite(self.points).all():
            raise UserError("explorer: some latent coordinates are not finite; the autoencoder has diverged")
        sizes = [layer.inputs for layer in self.decoder] + [self.decoder[-1].outputs]
        if sizes[0] != size or sizes[-1] != self.image_size**2:
            raise ValueError(f"the decoder maps {sizes[0]} values to {sizes[-1]}")
        if any(first.outputs != second.inputs for first, second in pairwise(self.decoder)):
            raise ValueError(f"the decoder's layers do not follow each other: {sizes}")
        if not (len(self.classes) == len(self.names) == len(self.thumbnails) == count):
            raise ValueError(f"{count} points need as many classes, names and thumbnails")
        if not 1 <= len(self.class_names) <= MOST_CLASSES or self.classes.max() >= len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names: at most {MOST_CLASSES}, one for each class"
            )

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return int(self.points.shape[1])


def quantize_layer(layer: DenseLayer) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes a layer's weight as ``values * scales[:, None]``: (outputs, inputs) and (outputs,) float32.

    Values are int8 in [-127, 127], quantized symmetrically row by row; up to `KEPT_EXACT` weights they are
    float32, with scales of 1.

    Example:
        >>> values, scales = quantize_layer(DenseLayer(np.full((1, 20_000), -0.5), np.zeros(1)))
        >>> values.dtype, int(values.min())
        (dtype('int8'), -127)
    """
    if layer.weight.size <= KEPT_EXACT:
        return layer.weight.astype(np.float32), np.ones(layer.outputs, np.float32)
    largest = np.abs(layer.weight).max(axis=1)
    scales = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    values = np.rint(layer.weight / scales[:, None]).clip(-LEVELS, LEVELS).astype(np.int8)
    return values, scales


def jpeg(pictures: np.ndarray, columns: int) -> bytes:
    """Encodes pictures (N, T, T) uint8 as a JPEG sheet with ``columns`` columns, filled row by row.

    Raises:
        UserError: the sheet is larger than browsers decode.
    """
    rows = math.ceil(len(pictures) / columns)
    sheet = montage(pictures, fill=0, grid_shape=(rows, columns))  # (R T, C T)
    if max(sheet.shape) > LONGEST_SIDE:
        size = " x ".join(map(str, sheet.shape))
        raise UserError(f"explorer: pictures of {size} pixels together; take fewer or smaller ones")
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=QUALITY, optimize=True, comment=SHEET)
    return buffer.getvalue()


@dataclass(frozen=True)
class Payload:
    """The packed data: ``description`` is plain JSON data, ``blocks`` are the base64 texts that it names."""

    description: dict[str, Any]
    blocks: dict[str, str]


def pack(explorer: Explorer) -> Payload:
    """Packs an explorer: arrays become little-endian and gzipped, pictures become JPEG sheets."""
    columns = math.ceil(math.sqrt(len(explorer.thumbnails)))
    description: dict[str, Any] = {
        "title": explorer.title,
        "notes": explorer.notes,
        "dimensions": explorer.dimensions,
        "classNames": list(explorer.class_names),
        "classes": explorer.classes.tolist(),
        "names": list(explorer.names),
        "thumbnails": {"size": explorer.thumbnails.shape[1], "columns": columns},
        "imageSize": explorer.image_size,
        "valueRange": [float(value) for value in explorer.value_range],
        "layers": [],
        "atlas": None,
    }
    thumbnails = base64.b64encode(jpeg(explorer.thumbnails, columns)).decode()
    blocks = {"points": _array(explorer.points.astype(np.float32)), "thumbnails": thumbnails}
    for index, layer in enumerate(explorer.decoder):
        values, scales = quantize_layer(layer)
        sizes = {"inputs": layer.inputs, "outputs": layer.outputs, "type": values.dtype.name}
        description["layers"].append({**sizes, "activation": layer.activation, "slope": layer.slope})
        parts = {"values": values, "scales": scales, "bias": layer.bias.astype(np.float32)}
        blocks |= {f"layer{index}-{name}": _array(part) for name, part in parts.items()}
    if explorer.atlas is not None:
        atlas = explorer.atlas
        rows, columns, size, _ = atlas.samples.shape
        shape = {"rows": rows, "columns": columns, "size": size}
        description["atlas"] = {**shape, "corners": list(atlas.corners), "notes": atlas.notes}
        blocks["atlas"] = base64.b64encode(jpeg(atlas.samples.reshape(-1, size, size), columns)).decode()
    return Payload(description, blocks)


def _array(values: np.ndarray) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(gzip.compress(little.tobytes(), mtime=0)).decode()  # equal data, equal files


PAGE = Path(__file__).parent / "page"
LARGEST_FILE = 25_000_000
"""Bytes that mail servers and browsers on phones still take."""
CONFIG = Path("configs") / "explore.yaml"
RUN_ID = "explorer"


def write_explorer(path: str | os.PathLike[str], explorer: Explorer) -> Path:
    """Writes the explorer, atomically, as one HTML file that needs no network; returns its path.

    Raises:
        UserError: the file would be larger than 25 MB, or cannot be written.

    Example: ``write_explorer("map.html", explorer)`` with the explorer shown in `Explorer`.
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

"""The explorer's data as text for a page: a description in JSON, and arrays in base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.explorer.data import Atlas, Explorer
from common.explorer.quantisation import PackedLayer, pack
from common.explorer.sheets import grid_sheet, jpeg, square_sheet


@dataclass(frozen=True)
class Payload:
    """``description`` is plain JSON data; ``blocks`` are named base64 texts that it speaks of."""

    description: dict[str, Any]
    blocks: dict[str, str]


def packed(explorer: Explorer) -> Payload:
    """All of the explorer; arrays are little-endian and gzipped, pictures are JPEG sheets."""
    layers = [pack(layer) for layer in explorer.decoder]
    sheet, columns = square_sheet(explorer.thumbnails)
    description = {
        "title": explorer.title,
        "notes": explorer.notes,
        "dimensions": explorer.dimensions,
        "classNames": list(explorer.class_names),
        "classes": explorer.classes.tolist(),
        "names": list(explorer.names),
        "thumbnails": {"size": explorer.thumbnails.shape[1], "columns": columns},
        "imageSize": explorer.image_size,
        "valueRange": [float(value) for value in explorer.value_range],
        "layers": [_layer_description(layer) for layer in layers],
        "atlas": None if explorer.atlas is None else _atlas_description(explorer.atlas),
    }
    blocks = {"points": _array(explorer.points.astype(np.float32)), "thumbnails": _base64(jpeg(sheet))}
    blocks.update(_layer_blocks(layers))
    if explorer.atlas is not None:
        blocks["atlas"] = _base64(jpeg(grid_sheet(explorer.atlas.samples)))
    return Payload(description, blocks)


def _layer_description(layer: PackedLayer) -> dict[str, Any]:
    outputs, inputs = layer.values.shape
    return {
        "inputs": inputs,
        "outputs": outputs,
        "type": layer.values.dtype.name,
        "activation": layer.activation,
        "slope": layer.slope,
    }


def _atlas_description(atlas: Atlas) -> dict[str, Any]:
    rows, columns, size, _ = atlas.samples.shape
    return {
        "rows": rows,
        "columns": columns,
        "size": size,
        "corners": list(atlas.corners),
        "notes": atlas.notes,
    }


def _layer_blocks(layers: Iterable[PackedLayer]) -> dict[str, str]:
    return {
        f"layer{index}-{part}": _array(getattr(layer, part))
        for index, layer in enumerate(layers)
        for part in ("values", "scales", "bias")
    }


def _array(values: np.ndarray) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return _base64(gzip.compress(little.tobytes(), mtime=0))  # no time inside: the same data, the same file


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

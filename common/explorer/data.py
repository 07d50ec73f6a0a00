"""The data of a latent explorer (points, thumbnails, decoder, atlas), and how they are packed into a page."""

from __future__ import annotations

import base64
import gzip
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from common.errors import UserError
from common.provenance import SHEET

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid")
WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Flatten, nn.Unflatten)
"""Modules that do not change the values of a decoded vector."""
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
        activation: one of `ACTIVATIONS`.
        slope: slope of the negative side, for ``leaky_relu`` only.

    Raises:
        ValueError: the arrays do not fit together or the activation is unknown.
    """

    weight: np.ndarray
    bias: np.ndarray
    activation: str = "linear"
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"weight {self.weight.shape} and bias {self.bias.shape} are no dense layer")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])


def dense_layers(network: nn.Module) -> list[DenseLayer]:
    """Returns the dense layers of a (nested) `torch.nn.Sequential` of Linear layers and activations.

    Batch normalisation after a Linear layer is folded into it, with its running statistics. Dropout and
    modules that only change shapes are dropped.

    Raises:
        ValueError: another kind of module, or one that does not follow a Linear layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 16))
        >>> [(layer.inputs, layer.outputs, layer.activation) for layer in dense_layers(network)]
        [(2, 8, 'relu'), (8, 16, 'linear')]
    """
    layers: list[DenseLayer] = []
    for module in _leaves(network):
        if isinstance(module, nn.Linear):
            layers.append(_linear(module))
        elif not isinstance(module, WITHOUT_EFFECT):
            if not layers or layers[-1].activation != "linear":
                raise ValueError(f"{type(module).__name__} does not follow a Linear layer")
            layers[-1] = _with_module(layers[-1], module)
    return layers


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(module, nn.Sequential):
        yield module
        return
    for child in module:
        yield from _leaves(child)


def _linear(module: nn.Linear) -> DenseLayer:
    weight = _numpy(module.weight).astype(np.float32)
    bias = np.zeros(len(weight)) if module.bias is None else _numpy(module.bias)
    return DenseLayer(weight, bias.astype(np.float32))


def _with_module(layer: DenseLayer, module: nn.Module) -> DenseLayer:
    """Returns the layer with the module after it."""
    if isinstance(module, nn.BatchNorm1d):
        return _with_batch_norm(layer, module)
    if isinstance(module, nn.LeakyReLU):
        return replace(layer, activation="leaky_relu", slope=float(module.negative_slope))
    names = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if type(module) not in names:
        raise ValueError(f"{type(module).__name__} cannot be decoded in a page")
    return replace(layer, activation=names[type(module)])


def _with_batch_norm(layer: DenseLayer, module: nn.BatchNorm1d) -> DenseLayer:
    """Folds batch normalisation in evaluation mode, a scale and a shift, into the layer."""
    if module.running_mean is None or module.running_var is None:
        raise ValueError("batch normalisation without running statistics cannot be folded")
    scale = 1 / np.sqrt(_numpy(module.running_var) + module.eps)
    bias = (layer.bias - _numpy(module.running_mean)) * scale
    if module.affine:
        scale = scale * _numpy(module.weight)
        bias = bias * _numpy(module.weight) + _numpy(module.bias)
    weight = layer.weight * scale[:, None]
    return replace(layer, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


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

    def __post_init__(self) -> None:
        shape = self.samples.shape
        _require(self.samples.dtype == np.uint8, f"the atlas is uint8, not {self.samples.dtype}")
        _require(len(shape) == 4 and shape[2] == shape[3], f"the atlas is (R, C, T, T), not {shape}")
        _require(min(shape[:2]) >= 2, f"the atlas has at least 2 x 2 samples, not {shape[0]} x {shape[1]}")
        _require(len(self.corners) == 4, f"the atlas has four corners, not {len(self.corners)}")


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
        _check_points(self.points)
        _check_classes(self)
        _check_parts(self)
        _check_decoder(self)

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return int(self.points.shape[1])


def _check_points(points: np.ndarray) -> None:
    _require(points.ndim == 2 and len(points) > 0, f"points are (N, 2) or (N, 3), not {points.shape}")
    count, size = points.shape
    if size not in (2, 3):
        raise UserError(f"explorer: a latent of {size} values cannot be shown; train with 2 or 3")
    if count > MOST_POINTS:
        raise UserError(f"explorer: {count} points are more than a page shows; choose at most {MOST_POINTS}")
    if not np.isfinite(points).all():
        raise UserError("explorer: some latent coordinates are not finite; the autoencoder has diverged")


def _check_classes(explorer: Explorer) -> None:
    classes, count = explorer.classes, len(explorer.class_names)
    _require(classes.shape == explorer.points.shape[:1], f"one class a point, not {classes.shape}")
    _require(np.issubdtype(classes.dtype, np.integer), f"classes are integers, not {classes.dtype}")
    _require(1 <= count <= MOST_CLASSES, f"one to {MOST_CLASSES} classes, not {count}")
    _require(classes.min() >= 0 and classes.max() < count, "classes index class_names")


def _check_parts(explorer: Explorer) -> None:
    count, shape = len(explorer.points), explorer.thumbnails.shape
    _require(len(explorer.names) == count, f"{len(explorer.names)} names for {count} points")
    _require(explorer.thumbnails.dtype == np.uint8, f"thumbnails are uint8, not {explorer.thumbnails.dtype}")
    fits = len(shape) == 3 and shape[0] == count and shape[1] == shape[2]
    _require(fits, f"thumbnails are ({count}, T, T), not {shape}")
    low, high = explorer.value_range
    _require(low < high, f"the value range goes upwards, not from {low} to {high}")


def _check_decoder(explorer: Explorer) -> None:
    sizes = [(layer.inputs, layer.outputs) for layer in explorer.decoder]
    _require(bool(sizes), "the decoder has at least one layer")
    _require(sizes[0][0] == explorer.dimensions, f"the decoder takes {sizes[0][0]} values")
    _require(sizes[-1][1] == explorer.image_size**2, f"the decoder gives {sizes[-1][1]} values")
    chained = all(before[1] == after[0] for before, after in pairwise(sizes))
    _require(chained, f"the decoder's layers do not follow each other: {sizes}")


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class PackedLayer:
    """A dense layer whose weight is ``values * scales[:, None]``.

    ``values`` is (outputs, inputs), int8 in [-127, 127] or float32 with scales of one; ``scales`` and
    ``bias`` are (outputs,) float32.
    """

    values: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    activation: str
    slope: float


def quantize_layer(layer: DenseLayer) -> PackedLayer:
    """Returns the layer as the page has it: int8, or float32 up to `KEPT_EXACT` weights."""
    if layer.weight.size <= KEPT_EXACT:
        values, scales = layer.weight.astype(np.float32), np.ones(layer.outputs, np.float32)
    else:
        values, scales = quantize(layer.weight)
    return PackedLayer(values, scales, layer.bias.astype(np.float32), layer.activation, layer.slope)


def quantize(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes (outputs, inputs) symmetrically, row by row, to int8 values and float32 scales (outputs,).

    Example:
        >>> values, scales = quantize(np.array([[0.5, -1.0]]))
        >>> values.tolist()
        [[64, -127]]
    """
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    values = np.rint(weight / scales[:, None]).clip(-LEVELS, LEVELS).astype(np.int8)
    return values, scales


def square_sheet(pictures: np.ndarray) -> tuple[np.ndarray, int]:
    """Puts pictures (N, T, T) on a nearly square sheet (R * T, C * T), row by row; returns it and C."""
    count, side = pictures.shape[:2]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, side, side), np.uint8)
    grid[:count] = pictures
    return grid_sheet(grid.reshape(rows, columns, side, side)), columns


def grid_sheet(pictures: np.ndarray) -> np.ndarray:
    """Puts a grid of pictures (R, C, T, T) on one sheet (R * T, C * T)."""
    rows, columns, side, _ = pictures.shape
    return pictures.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)  # (R, T, C, T) -> (R T, C T)


def jpeg(sheet: np.ndarray) -> bytes:
    """Encodes a grey picture (H, W) uint8 as JPEG.

    Raises:
        UserError: it is larger than browsers decode.
    """
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
    layers = [quantize_layer(layer) for layer in explorer.decoder]
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
    return _base64(gzip.compress(little.tobytes(), mtime=0))  # without a time, equal data give equal files


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

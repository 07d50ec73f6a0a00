"""From a network's squares back to the voxels of the file they were cut from, plane by plane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.store.planes import Frame, planes_shape, to_planes
from common.data.store.reading import SliceReader
from common.data.store.volume import StoredVolume
from common.data.volumes import Volume

_WHITE = np.float32(65535)


def kept(prediction: Tensor) -> np.ndarray:
    """Channel 0 of a prediction (C, S, S) in [-1, 1] as the store keeps images: uint16, 0..65535 for 0..1."""
    unit = from_network(prediction[0].float().cpu().numpy())
    return np.rint(unit * _WHITE).astype(np.uint16)


def plane_of(square: np.ndarray, volume: StoredVolume) -> np.ndarray:
    """A kept square (S, S) as the plane (h, w) of the source that it was cut from, float32 in [0, 1].

    Pixels beyond the crop are 0.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    return np.clip(frame.image_back(square / _WHITE, 0.0), 0.0, 1.0)


def assembled(squares: Iterable[np.ndarray], volume: StoredVolume, scale: Window) -> np.ndarray:
    """Kept squares as planes (N, h, w) of the source, int16: ``scale`` is what 0 and 1 become (HU)."""
    result = np.empty(planes_shape(volume.shape, volume.geometry.axis), np.int16)
    for square, plane in zip(squares, result, strict=True):
        plane[:] = to_hu(plane_of(square, volume), scale)
    return result


def real_planes(volume: StoredVolume, scale: Window) -> np.ndarray:
    """A stored image as `assembled` gives a generated one: of the same range and resolution."""
    reader = SliceReader()
    unit = (reader.image(volume, index) for index in range(volume.depth))
    return assembled((square * _WHITE for square in unit), volume, scale)


def condition_planes(volume: StoredVolume, table: np.ndarray | None) -> tuple[Volume, np.ndarray]:
    """The source read again: its place in the world without its voxels, and the class of each voxel.

    Args:
        volume: a label file in the store, or a condition image.
        table: the class of each code of the label; None for an image, where all voxels are of one class.
    Returns:
        a `Volume` whose array is empty, and uint8 (N, h, w) planes of class indices 0..K.
    """
    source = Volume.from_file(volume.source)
    planes = to_planes(source.array, volume.geometry.axis)
    classes = np.ones(planes.shape, np.uint8)
    if table is not None:
        for plane, out in zip(planes, classes, strict=True):
            out[:] = table[np.searchsorted(volume.values, plane)]
    return replace(source, array=np.empty((0, 0, 0))), classes

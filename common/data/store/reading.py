"""Single slices out of the store, at the speed of the page cache."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

from common.data.store.volume import StoredVolume
from common.errors import UserError

# What np.save puts before the data of an array of three dimensions.
HEADER_BYTES = 128
MOST_OPEN = 128
_SCALE = np.float32(1 / 65535)  # 65535 becomes exactly 1


class SliceReader:
    """Reads slices of stored volumes by position, without mapping the files into memory.

    Files are opened when they are first read; the most recent ones stay open. A reader can be pickled, and
    used on both sides of a fork (each read names its offset); threads need one reader each.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._raw = np.empty(0, np.uint16)

    def image(self, volume: StoredVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Slice ``index`` of an image as float32 (S, S) in [0, 1], into ``out`` where that is given.

        Raises:
            IndexError: no such slice.
            UserError: the array is gone or cut short.
        """
        size = volume.geometry.size
        if self._raw.size != size * size:
            self._raw = np.empty(size * size, np.uint16)
        self._read(volume, index, self._raw)
        result = np.empty((size, size), np.float32) if out is None else out
        result[...] = self._raw.reshape(
            size, size
        )  # apart from the product: three times as fast as one ufunc
        result *= _SCALE
        return result

    def label(self, volume: StoredVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Slice ``index`` of a label file as uint8 codes (S, S), into ``out`` (contiguous) where given.

        Raises:
            IndexError: no such slice.
            UserError: the array is gone or cut short.
        """
        size = volume.geometry.size
        result = np.empty((size, size), np.uint8) if out is None else out
        self._read(volume, index, result)
        return result

    def close(self) -> None:
        """Closes the files; the next read opens what it needs."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._open, self._raw = OrderedDict(), np.empty(0, np.uint16)

    def __del__(self) -> None:
        self.close()

    def _read(self, volume: StoredVolume, index: int, into: np.ndarray) -> None:
        if not 0 <= index < volume.depth:
            raise IndexError(f"{volume.source}: slice {index} of {volume.depth}")
        handle = self._handle(volume.array)
        if os.preadv(handle, [into.data], HEADER_BYTES + index * into.nbytes) != into.nbytes:
            raise UserError(f"{volume.array}: cut short; delete it and run again to convert it anew")

    def _handle(self, path: Path) -> int:
        handle = self._open.get(path)
        if handle is not None:
            self._open.move_to_end(path)
            return handle
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); run again to convert it") from error
        self._open[path] = handle
        if len(self._open) > MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return handle

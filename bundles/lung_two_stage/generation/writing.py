"""Drawn nodules as files: the crop, and beside it its alpha."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.data.intensity import Window, from_network
from common.inference.numbering import SampleNumbers
from common.inference.sample_writing import SAMPLES, SampleWriter, write_slice
from common.inference.writing import write_picture
from common.provenance import UNKNOWN, Provenance

ALPHA = "alpha"
ALPHA_VALUES = Window(0, 255)
"""No HU: 0 is no nodule, 255 all of it."""


class NoduleWriter(SampleWriter):
    """As `common.inference.sample_writing.SampleWriter`, with the alpha of each nodule under ``alpha/``.

    An alpha has its crop's name; 0 to 255 in both file types. A NIfTI pixel has the size of those that were
    learned from.

    Args:
        numbers, seed, output_dir, info, file_type, grid, provenance: as there.
    """

    def __init__(
        self,
        numbers: SampleNumbers,
        seed: int,
        output_dir: str | os.PathLike[str],
        info: Mapping[str, Any],
        file_type: str = "png",
        grid: int = 64,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(numbers, seed, output_dir, info, file_type, grid, provenance)
        self.spacing_mm = float(info.get("spacing_mm", 1.0))

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """HU window and, where there is one, alpha: (C, S, S) float32 in [0, 1]."""
        super().keep(position, prediction)
        return from_network(prediction.float().cpu().numpy())

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """The alpha's file, then the crop's."""
        crop, *alpha = slices[0]
        for values in alpha:
            path = self.folder / ALPHA / source.relative_to(self.folder / SAMPLES)
            self._write(path, values, ALPHA_VALUES, self.text(source))
        self._write(source, crop, self.window, self.text(source))
        return source

    def _write(self, path: Path, unit: np.ndarray, window: Window | None, text: PngInfo) -> None:
        if self.window is None or window is None:
            write_picture(path, unit, text)
        else:
            write_slice(path, unit, window, self.spacing_mm, self.provenance)

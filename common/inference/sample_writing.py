"""Drawn samples: a file each, and all of them at a glance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.volumes import single_slice, write_nifti
from common.errors import UserError
from common.files import write_json
from common.inference.collecting import FileCollector
from common.inference.models import model_window
from common.inference.numbering import SampleNumbers
from common.inference.strips import save_strip
from common.inference.writing import write_picture
from common.numbers import whole_number
from common.provenance import UNKNOWN, Provenance

SUFFIXES = {"png": ".png", "nifti": ".nii.gz"}
SAMPLES, GRID, COLUMNS = "samples", "grid.png", 8


class SampleWriter(FileCollector):
    """Writes each sample as soon as an evaluator has drawn it, and a grid of the first ones at the end.

    Sample k of seed s becomes ``samples/seed<s>_sample<k>``, of conditional models in a folder named after
    its class, so that ``samples`` is a data set. An existing file is replaced, whole. Each says that it is
    synthetic (`common.provenance`); one JSON file for all of a run lies beside them.

    Args:
        numbers: what the predictions belong to.
        seed: of the noise, for the names.
        output_dir: made where it is missing.
        info: what stands beside the model: its HU window.
        file_type: ``png``, 8 bits ([-1, 1] -> 0..255), or ``nifti``, int16 in HU; a pixel counts as 1 mm,
            since slices of all sizes were brought to one.
        grid: how many samples ``grid.png`` shows; 0 for no such file.
        provenance: what makes the images.
    Raises:
        UserError: no such type.
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
        if file_type not in SUFFIXES:
            raise UserError(f"file_type {file_type!r} is unknown; choose {' or '.join(SUFFIXES)}")
        self.folder, self.numbers, self.seed, self.provenance = Path(output_dir), numbers, seed, provenance
        self.window = model_window(info) if file_type == "nifti" else None
        shown = numbers.wanted[: whole_number("grid", grid)]
        self._tiles: dict[int, np.ndarray | None] = dict.fromkeys(shown)
        suffix = SUFFIXES[file_type]
        super().__init__({self._path(seed, number, suffix): [number] for number in numbers.wanted})

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the image (1, S, S) in [-1, 1] of sample number ``position``; passes over the unwanted."""
        if position in self.numbers.wanted:
            super().add(position, prediction)

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The image in [0, 1], (S, S) float32."""
        unit = from_network(prediction[0].float().cpu().numpy())
        if position in self._tiles:
            self._tiles[position] = unit
        return unit

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """One PNG or NIfTI file."""
        if self.window is None:
            write_picture(source, slices[0], self.text(source))
        else:
            write_slice(source, slices[0], self.window, provenance=self.provenance)
        return source

    def report(self) -> None:
        """The grid and the samples' JSON; one line: how many files, where."""
        tiles = [tile for tile in self._tiles.values() if tile is not None]
        if tiles:
            images = torch.from_numpy(np.stack(tiles))[:, None] * 2 - 1  # (N, 1, S, S)
            captions = [self._caption(number) for number in self._tiles]
            save_strip(self.folder / GRID, images, captions, COLUMNS, self.provenance)
        self._write_record()
        print(f"{len(self.written)} samples in {self.folder / SAMPLES}")

    def text(self, source: Path) -> PngInfo:
        """The text chunks of the sample at ``source``."""
        number = self.files[source][0]
        names = {"class": self.numbers.class_name(number)} if self.numbers.class_name(number) else {}
        return self.provenance.png(sample=number, **names)

    def _write_record(self) -> None:
        """One JSON file for the samples of this run, named after the first and the last."""
        if not self.written:
            return
        place, numbers = self.folder / SAMPLES, sorted(self.numbers.wanted)
        files = [path.relative_to(place).as_posix() for path in self.written]
        name = f"seed{self.seed}_samples{numbers[0]:06d}-{numbers[-1]:06d}.json"
        write_json(place / name, self.provenance.record(files=files))

    def _path(self, seed: int, number: int, suffix: str) -> Path:
        name = f"seed{seed}_sample{number:06d}{suffix}"
        return self.folder / SAMPLES / self.numbers.class_name(number) / name

    def _caption(self, number: int) -> str:
        name = self.numbers.class_name(number)
        return f"sample {number}" + (f", {name}" if name else "")


def write_slice(
    path: Path,
    unit: np.ndarray,
    window: Window,
    spacing_mm: float = 1.0,
    provenance: Provenance = UNKNOWN,
) -> None:
    """[0, 1] (H, W) as NIfTI of one axial slice in HU, 1 mm thick, atomically.

    Args:
        spacing_mm: side of a pixel.
        provenance: what made the image.
    """
    place = single_slice(unit.shape[0], unit.shape[1], spacing_mm)
    write_nifti(path, place, to_hu(unit, window)[..., None], provenance=provenance)

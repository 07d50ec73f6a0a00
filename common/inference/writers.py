"""Writers: handlers that turn an evaluator's predictions into PNG and NIfTI files.

`SliceWriter` writes a CT for each mask, `SampleWriter` images drawn from noise; those of volumes are in
`common.inference.volume_writers`. A file is written once its last slice is there, replaces an earlier one
atomically, and is marked as synthetic (`common.provenance`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.samples import is_volume, restore_orientation, stem
from common.data.slice_geometry import unfit_square
from common.data.volume_io import open_volume, single_slice, write_nifti
from common.errors import UserError, check_int
from common.files import atomic_write, write_json
from common.inference.checkpoint import model_window
from common.inference.datasets import MaskSlices, files_of
from common.inference.sampling import SampleNumbers
from common.provenance import UNKNOWN, Provenance
from common.visualization import save_strip


class FileCollector(ABC):
    """Base of the writers: keeps predictions until the last slice of a file is there, then writes the file.

    Args:
        files: the positions of each file's slices in the data set, in order.

    Attributes:
        written: the files written so far.
    """

    def __init__(self, files: Mapping[Path, Sequence[int]]) -> None:
        self.files = dict(files)
        self.written: list[Path] = []
        self._source = {position: file for file, positions in files.items() for position in positions}
        self._slices: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Takes the predictions of every iteration, and reports when the engine has completed."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self.report)

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the prediction (C, S, S) in [-1, 1] of the slice at ``position``."""
        self._slices[position] = self.keep(position, prediction)
        source = self._source[position]
        positions = self.files[source]
        if all(p in self._slices for p in positions):
            self.written.append(self.write(source, [self._slices.pop(p) for p in positions]))

    @abstractmethod
    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """Returns what is kept of a prediction until its file is complete."""

    @abstractmethod
    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes the result for the file ``source`` from what was kept of its slices; returns its path."""

    @abstractmethod
    def report(self) -> None:
        """Prints what was written."""

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            self.add(int(item["sample"]), output["pred"])


def check_output_dir(folder: Path, sources: Sequence[Path], kind: str) -> None:
    """Refuses an output folder in which the sources lie: results have the same names.

    Raises:
        UserError: ``folder`` is a source's folder, or a source itself (a DICOM series).
    """
    taken = {path.resolve() for source in sources for path in (source, source.parent)}
    if folder.resolve() in taken:
        raise UserError(f"{folder}: holds the {kind} themselves; choose another --output_dir")


def result_name(source: Path) -> str:
    """Returns a result's file name: PNG for pictures, NIfTI for volumes (.nii stays uncompressed).

    Example:
        >>> result_name(Path("case.mhd")), result_name(Path("case.nii")), result_name(Path("slice.jpg"))
        ('case.nii.gz', 'case.nii', 'slice.png')
    """
    if not is_volume(source):
        return f"{stem(source)}.png"
    return stem(source) + (".nii" if source.name.lower().endswith(".nii") else ".nii.gz")


def write_picture(path: Path, unit: np.ndarray, text: PngInfo) -> None:
    """Writes an image (H, W) in [0, 1] as 8-bit PNG with text chunks, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(np.rint(unit * 255).astype(np.uint8)).save(temporary, pnginfo=text)


def write_slice(
    path: Path,
    unit: np.ndarray,
    window: Window,
    spacing_mm: float = 1.0,
    provenance: Provenance = UNKNOWN,
) -> None:
    """Writes an image (H, W) in [0, 1] as NIfTI of one axial slice in HU, 1 mm thick, atomically.

    Args:
        window: the HU of 0 and 1.
        spacing_mm: side of a pixel.
        provenance: what made the image.
    """
    volume = single_slice(unit.shape[0], unit.shape[1], spacing_mm)
    write_nifti(path, volume, to_hu(unit, window)[..., None], provenance=provenance)


class SliceWriter(FileCollector):
    """Writes the CT of each mask of a folder.

    Pictures become 8-bit PNG ([-1, 1] -> 0..255); volumes become NIfTI int16 in HU with the mask's affine,
    shape and compression. Each file has a JSON file with its provenance beside it.

    Args:
        dataset: the masks that the predictions belong to.
        output_dir: created if missing; must not be the masks' own folder.
        window: the HU range of [-1, 1] that the model was trained with.
        provenance: what makes the images.
    Raises:
        UserError: ``output_dir`` is the masks' folder.
    """

    def __init__(
        self,
        dataset: MaskSlices,
        output_dir: str | os.PathLike[str],
        window: Window,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(files_of(dataset.samples))
        self.dataset, self.folder, self.window = dataset, Path(output_dir), window
        self.provenance = provenance
        check_output_dir(self.folder, list(self.files), "masks")

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """Returns the slice in [0, 1] at its mask's own size, (H, W) float32."""
        unit = from_network(prediction[0].float().cpu().numpy())
        return unfit_square(unit, *self.dataset.shapes[position], self.dataset.fit)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes one PNG or NIfTI file and its JSON."""
        sample = self.dataset.samples[self.files[source][0]]
        upright = [restore_orientation(array, sample.orientation) for array in slices]
        path = self.folder / result_name(source)
        if is_volume(source):
            hu = to_hu(np.stack(upright, axis=-1), self.window)  # (H, W, D)
            write_nifti(path, open_volume(source), hu, provenance=self.provenance)
        else:
            write_picture(path, upright[0], self.provenance.png(source))
        self.provenance.write_beside(path, source)
        return path

    def report(self) -> None:
        """Prints one line: the number of files and their folder."""
        print(f"{len(self.written)} CT files for {len(self.files)} masks in {self.folder}")


SUFFIXES = {"png": ".png", "nifti": ".nii.gz"}
SAMPLES, GRID, COLUMNS = "samples", "grid.png", 8
CHANNEL_VALUES = Window(0, 255)
"""What 0 and 1 of a further channel become in a NIfTI file; no HU."""


class SampleWriter(FileCollector):
    """Writes each sample of a generator that draws from noise, and a grid of the first ones.

    Sample k of seed s becomes ``samples/seed<s>_sample<k>``; a conditional model's lies in a folder named
    after its class, so that ``samples`` is a data set. One JSON file per run holds the provenance of all.

    Args:
        numbers: the samples that the predictions belong to.
        seed: seed of the noise, for the names.
        output_dir: created if missing.
        info: the facts beside the model: HU window, and ``spacing_mm`` if its pixels have a size (else 1 mm).
        file_type: ``png``, 8 bits ([-1, 1] -> 0..255), or ``nifti``, int16 in HU.
        grid: number of samples that ``grid.png`` shows; 0 for no such file.
        provenance: what makes the images.
        channel_folders: where channels 1, 2, ... of the prediction are written, under the sample's name, from
            0 to 255 in both file types; e.g. ``[alpha]``. Channels beyond these are not written.
    Raises:
        UserError: unknown file type.
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
        channel_folders: Sequence[str] = (),
    ) -> None:
        if file_type not in SUFFIXES:
            raise UserError(f"file_type {file_type!r} is unknown; choose {' or '.join(SUFFIXES)}")
        self.folder, self.numbers, self.seed, self.provenance = Path(output_dir), numbers, seed, provenance
        self.window = model_window(info) if file_type == "nifti" else None
        self.spacing_mm, self.channel_folders = float(info.get("spacing_mm", 1.0)), list(channel_folders)
        self._tiles: dict[int, np.ndarray | None] = dict.fromkeys(
            numbers.requested[: check_int("grid", grid)]
        )
        suffix = SUFFIXES[file_type]
        super().__init__({self._path(seed, number, suffix): [number] for number in numbers.requested})

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the prediction (C, S, S) of sample ``position``; ignores samples that only fill a block."""
        if position in self.numbers.requested:
            super().add(position, prediction)

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """Returns the channels in [0, 1], (C, S, S) float32."""
        unit = from_network(prediction.float().cpu().numpy())
        if position in self._tiles:
            self._tiles[position] = unit[0]
        return unit

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes the further channels, then the image itself."""
        image, *channels = slices[0]
        for folder, channel in zip(self.channel_folders, channels, strict=False):
            path = self.folder / folder / source.relative_to(self.folder / SAMPLES)
            self._save(path, channel, CHANNEL_VALUES, self.text(source))
        self._save(source, image, self.window, self.text(source))
        return source

    def report(self) -> None:
        """Writes the grid and the samples' JSON; prints the number of files and their folder."""
        tiles = [tile for tile in self._tiles.values() if tile is not None]
        if tiles:
            images = torch.from_numpy(np.stack(tiles))[:, None] * 2 - 1  # (N, 1, S, S)
            captions = [self._caption(number) for number in self._tiles]
            save_strip(self.folder / GRID, images, captions, COLUMNS, self.provenance)
        if self.written:
            self._write_record()
        print(f"{len(self.written)} samples in {self.folder / SAMPLES}")

    def text(self, source: Path) -> PngInfo:
        """Returns the text chunks of the sample at ``source``."""
        number = self.files[source][0]
        names = {"class": self.numbers.class_name(number)} if self.numbers.class_name(number) else {}
        return self.provenance.png(sample=number, **names)

    def _save(self, path: Path, unit: np.ndarray, window: Window | None, text: PngInfo) -> None:
        if self.window is None or window is None:
            write_picture(path, unit, text)
        else:
            write_slice(path, unit, window, self.spacing_mm, self.provenance)

    def _write_record(self) -> None:
        """Writes one JSON file for the samples of this run, named after the first and the last."""
        folder, numbers = self.folder / SAMPLES, sorted(self.numbers.requested)
        files = [path.relative_to(folder).as_posix() for path in self.written]
        name = f"seed{self.seed}_samples{numbers[0]:06d}-{numbers[-1]:06d}.json"
        write_json(folder / name, self.provenance.record(files=files))

    def _path(self, seed: int, number: int, suffix: str) -> Path:
        name = f"seed{seed}_sample{number:06d}{suffix}"
        return self.folder / SAMPLES / self.numbers.class_name(number) / name

    def _caption(self, number: int) -> str:
        name = self.numbers.class_name(number)
        return f"sample {number}" + (f", {name}" if name else "")

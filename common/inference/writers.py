"""Writers: handlers that turn an evaluator's predictions into PNG and NIfTI files.

`SliceWriter` writes a CT for each mask, `SampleWriter` images drawn from noise, `VolumeWriter` an image for
each label file, `PairWriter` images with their label maps. A file is written once its last slice is there,
replaces an earlier one atomically, and is marked as synthetic (`common.provenance`).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.labels import MMWHS_VALUES, WHOLE_HEART
from common.data.labels import STRUCTURES as HEART_STRUCTURES
from common.data.resize import unfit_square
from common.data.samples import restore_orientation, stem
from common.data.slice_cache import CachedVolume, SliceReader
from common.data.slice_geometry import Frame, from_planes, planes_shape, to_planes
from common.data.volume_io import Volume, is_volume, open_volume, single_slice, write_nifti
from common.errors import UserError, check_int
from common.files import atomic_write, write_json
from common.inference.checkpoint import Scale, model_window
from common.inference.datasets import Converted, LabelSlices, LabelVariants, MaskSlices, Variant, files_of
from common.inference.sampling import SampleNumbers
from common.inference.slice_consistency import STRUCTURES, Flicker, check_sigma, flicker, smooth_across
from common.metrics.segmentation import mean_dice, overlap_counts
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
        self._tiles: dict[int, np.ndarray | None] = dict.fromkeys(numbers.wanted[: check_int("grid", grid)])
        suffix = SUFFIXES[file_type]
        super().__init__({self._path(seed, number, suffix): [number] for number in numbers.wanted})

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the prediction (C, S, S) of sample ``position``; ignores samples that only fill a block."""
        if position in self.numbers.wanted:
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
        folder, numbers = self.folder / SAMPLES, sorted(self.numbers.wanted)
        files = [path.relative_to(folder).as_posix() for path in self.written]
        name = f"seed{self.seed}_samples{numbers[0]:06d}-{numbers[-1]:06d}.json"
        write_json(folder / name, self.provenance.record(files=files))

    def _path(self, seed: int, number: int, suffix: str) -> Path:
        name = f"seed{seed}_sample{number:06d}{suffix}"
        return self.folder / SAMPLES / self.numbers.class_name(number) / name

    def _caption(self, number: int) -> str:
        name = self.numbers.class_name(number)
        return f"sample {number}" + (f", {name}" if name else "")


_WHITE = np.float32(65535)


def quantized(prediction: Tensor) -> np.ndarray:
    """Returns channel 0 of a prediction (C, S, S) in [-1, 1] as the slice cache stores images: uint16."""
    unit = from_network(prediction[0].float().cpu().numpy())
    return np.rint(unit * _WHITE).astype(np.uint16)


def image_plane(square: np.ndarray, volume: CachedVolume) -> np.ndarray:
    """Returns a `quantized` square (S, S) as a plane (h, w) of its source, float32 in [0, 1].

    Pixels that the crop left out are 0.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    return np.clip(frame.image_back(square / _WHITE, 0.0), 0.0, 1.0)


def image_planes(squares: Iterable[np.ndarray], volume: CachedVolume, scale: Window) -> np.ndarray:
    """Returns `quantized` squares as planes (N, h, w) of their source, int16; ``scale`` gives 0 and 1 in HU.

    Unlike `CachedVolume.to_source` it makes no float copy of the whole volume.
    """
    result = np.empty(planes_shape(volume.shape, volume.geometry.axis), np.int16)
    for square, plane in zip(squares, result, strict=True):
        plane[:] = to_hu(image_plane(square, volume), scale)
    return result


def real_planes(volume: CachedVolume, scale: Window) -> np.ndarray:
    """Returns a stored image in the range and resolution that `image_planes` gives a generated one."""
    reader = SliceReader()
    unit = (reader.image(volume, index) for index in range(volume.depth))
    return image_planes((square * _WHITE for square in unit), volume, scale)


def condition_planes(volume: CachedVolume, table: np.ndarray | None) -> tuple[Volume, np.ndarray]:
    """Reads the source again, for its geometry and the class of each voxel.

    Args:
        volume: a stored label file, or a condition image.
        table: the class of each code of the label; None for an image, whose voxels are all of class 1.
    Returns:
        A `Volume` without voxels, and uint8 (N, h, w) planes of class indices 0..K.
    """
    source = Volume.from_file(volume.source)
    planes = to_planes(source.array, volume.geometry.axis)
    classes = np.ones(planes.shape, np.uint8)
    if table is not None:
        for plane, out in zip(planes, classes, strict=True):
            out[:] = table[np.searchsorted(volume.values, plane)]
    return replace(source, array=np.empty((0, 0, 0))), classes


FLICKER_FILE = "flicker.json"
EVERYWHERE = ("everywhere",)
"""The class that flicker is measured in where no label tells structures apart."""


class VolumeWriter(FileCollector):
    """Writes the image of each label file, and measures its consistency from slice to slice.

    Volumes become NIfTI int16 with shape and affine of the label file, pictures 8-bit PNG. Each file has a
    JSON file with its provenance beside it. Flicker and columns (`common.inference.slice_consistency`) of
    each volume are printed and written to ``flicker.json``: of the ``generated`` image, of the ``smoothed``
    one if smoothing is on, and of the ``real`` image if there is one, in the range and resolution of the
    generated.

    Args:
        dataset: the label files that the predictions belong to.
        output_dir: created if missing; must not be the labels' own folder.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis; 0 for none.
        provenance: what makes the images.
    Raises:
        UserError: ``output_dir`` is the labels' folder, or ``smooth_slices`` is invalid.
    """

    def __init__(
        self,
        dataset: LabelSlices,
        output_dir: str | os.PathLike[str],
        scale: Scale,
        smooth_slices: float = 0.0,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(dataset.files)
        self.folder, self.scale, self.sigma = Path(output_dir), scale, check_sigma(smooth_slices)
        self.classes, self.provenance = dataset.classes or EVERYWHERE, provenance
        if self.sigma and not dataset.classes:
            raise UserError("smooth_slices stops at the borders of labels; this model has none: leave it 0")
        check_output_dir(self.folder, list(self.files), "labels")
        self.flicker: dict[str, dict[str, dict[str, Flicker]]] = {}
        self._converted = {file.path: file for file in dataset.converted}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """Returns the image in 16 bits, (S, S); it is resized to its file's planes one file at a time."""
        return quantized(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes one PNG or NIfTI file and its JSON."""
        path = self.folder / result_name(source)
        if is_volume(source):
            self._write_volume(self._converted[source], slices, path)
        else:
            condition = self._converted[source].condition
            upright = restore_orientation(image_plane(slices[0], condition), condition.orientation)
            write_picture(path, upright, self.provenance.png(source))
        self.provenance.write_beside(path, source, smooth_slices=self.sigma)
        return path

    def report(self) -> None:
        """Writes ``flicker.json`` if there are volumes; prints the number of files, their unit and folder."""
        if self.flicker:
            volumes = {
                name: {
                    kind: {part: value.as_json() for part, value in parts.items()}
                    for kind, parts in measured.items()
                }
                for name, measured in self.flicker.items()
            }
            settings = {"unit": self.scale.unit, "smooth_slices": self.sigma}
            write_json(self.folder / FLICKER_FILE, {**settings, "volumes": volumes})
        count = len(self.files)
        print(f"{len(self.written)} images ({self.scale}) for {count} label files in {self.folder}")

    def _write_volume(self, file: Converted, slices: list[np.ndarray], path: Path) -> None:
        volume, classes = condition_planes(file.condition, file.table)  # (N, h, w)
        image = image_planes(slices, file.condition, self.scale.window)
        mm = file.condition.slice_mm
        measured = {"generated": flicker(image, classes, self.classes, mm)}
        if self.sigma:
            image = smooth_across(image, classes, self.sigma)
            measured["smoothed"] = flicker(image, classes, self.classes, mm)
        voxels = from_planes(image, file.condition.geometry.axis)
        write_nifti(path, volume, voxels, provenance=self.provenance)
        if file.real is not None:
            real = real_planes(file.real, self.scale.window)
            measured["real"] = flicker(real, classes, self.classes, mm)
        self.flicker[path.name] = measured
        line = "; ".join(f"{name} {parts[STRUCTURES]}" for name, parts in measured.items())
        print(f"{path.name}: flicker in {self.scale.unit}: {line}")


ORDER = {name: value for value, name in enumerate(HEART_STRUCTURES, start=1)}


def drawn_label_plane(prediction: Tensor, volume: CachedVolume) -> np.ndarray:
    """Returns the class of each pixel of the source's plane, uint8 (h, w), from an image and its logits.

    Args:
        prediction: (2 + K, S, S), the image and K + 1 logits.
        volume: the stored source.

    The probabilities are resized linearly to the plane and the likeliest class is taken there, so borders are
    as smooth as the network drew them. Pixels that the crop left out are background.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    probabilities = prediction[1:].float().softmax(dim=0).cpu().numpy()  # (K + 1, S, S)
    planes = [frame.image_back(p, 1.0 if k == 0 else 0.0) for k, p in enumerate(probabilities)]
    return np.argmax(planes, axis=0).astype(np.uint8)


def label_plane(label: np.ndarray, volume: CachedVolume) -> np.ndarray:
    """Returns a class map (S, S) as the source's plane (h, w), by nearest neighbour."""
    return Frame.of(volume.geometry, volume.shape, volume.spacing).label_back(label, 0)


def values_of_classes(
    file: Converted, classes: Sequence[str], others: Sequence[Converted] = ()
) -> np.ndarray:
    """Returns each class's value in the label file: uint16 (K + 1,), 0 for background.

    A structure that the file does not have takes the value it has in the first of ``others`` that has it, or
    else that of the convention the file follows: 1..7 in `STRUCTURES`' order, or MM-WHS's. ``whole_heart``
    takes the first number that the file does not use if it stands for several of the file's values.
    """
    values = np.zeros(len(classes) + 1, np.uint16)
    own = [(name, _values(file, index)) for index, name in enumerate(classes, start=1)]
    counted = all(found == [ORDER[name]] for name, found in own if found and name in ORDER)
    convention = ORDER if counted else MMWHS_VALUES
    for index, (name, found) in enumerate(own, start=1):
        if name == WHOLE_HEART:
            free = next(n for n in count(1) if n not in file.condition.values)
            values[index] = found[0] if len(found) == 1 else free
        else:
            known = (value for each in (file, *others) for value in _values(each, index))
            values[index] = next(known, convention[name])
    return values


def _values(file: Converted, index: int) -> list[int]:
    """Returns the file's values that mean class ``index``."""
    return [int(file.condition.values[code]) for code in np.flatnonzero(np.asarray(file.table) == index)]


IMAGES, LABELS, RECORD = "images", "labels", "pairs.json"


class PairWriter(FileCollector):
    """Writes the image and the label map of each perturbed label, as a data set to train on.

    Volumes become NIfTI with shape and affine of the label file: ``images/NAME`` in int16 HU, ``labels/NAME``
    in uint16, in the file's own label values. Pictures become 8-bit PNG. The label map is what the generator
    drew with the image, or the perturbed map if it draws images only. ``pairs.json`` records what each pair
    was made from; an image has a JSON file with its provenance beside it.

    Args:
        dataset: the perturbed labels that the predictions belong to.
        output_dir: created if missing.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis, within structures; 0 for none.
        provenance: what makes the pairs.
    Raises:
        UserError: ``output_dir`` holds the labels themselves, or ``smooth_slices`` is invalid.
    """

    def __init__(
        self,
        dataset: LabelVariants,
        output_dir: str | os.PathLike[str],
        scale: Scale,
        smooth_slices: float = 0.0,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(dataset.files)
        self.dataset, self.folder, self.scale = dataset, Path(output_dir), scale
        self.sigma, self.provenance = check_sigma(smooth_slices), provenance
        sources = [variant.file.path for variant in dataset.variants]
        for folder in (self.folder, self.folder / IMAGES, self.folder / LABELS):
            check_output_dir(folder, sources, "labels")
        self.pairs: list[dict[str, Any]] = []
        self._variants = {Path(variant.name): variant for variant in dataset.variants}
        self._maps: dict[int, np.ndarray] = {}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """Returns the image in 16 bits, (S, S); its label map is kept as a plane of the source."""
        channels = len(self.dataset.classes) + 2
        if len(prediction) not in (1, channels):
            raise UserError(
                f"the model draws {len(prediction)} channels where image and map of {channels - 2} classes "
                f"are {channels}; give the model's own configs"
            )
        volume = self._variants[self._source[position]].file.condition
        if len(prediction) == channels:
            self._maps[position] = drawn_label_plane(prediction, volume)
        else:
            self._maps[position] = label_plane(self.dataset.condition(position), volume)
        return quantized(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes two files and the image's JSON; returns the image's path."""
        variant = self._variants[source]
        maps = np.stack([self._maps.pop(position) for position in self.files[source]])  # (N, h, w)
        others = [each.file for each in self.dataset.variants]
        values = values_of_classes(variant.file, self.dataset.classes, others)
        write = self._write_volumes if is_volume(variant.file.path) else self._write_pictures
        path = write(variant, slices, maps, values)
        self.provenance.write_beside(path, variant.file.path, **_facts(variant))
        self.pairs.append(self._record(variant, path.name, maps))
        return path

    def report(self) -> None:
        """Writes ``pairs.json``; prints the number of pairs, their unit, folder and mean Dice."""
        write_json(self.folder / RECORD, {"seed": self.dataset.seed, "pairs": self.pairs})
        overlap = float(np.mean([pair["dice_with_source"] for pair in self.pairs]))
        print(
            f"{len(self.written)} pairs of image ({self.scale}) and label map in {self.folder}; "
            f"Dice of the maps with those they started from: {overlap:.2f} on average"
        )

    def _write_volumes(
        self, variant: Variant, slices: list[np.ndarray], maps: np.ndarray, values: np.ndarray
    ) -> Path:
        volume = variant.file.condition
        image = image_planes(slices, volume, self.scale.window)
        if self.sigma:
            image = smooth_across(image, maps, self.sigma)
        source = replace(Volume.from_file(volume.source), array=np.empty((0, 0, 0)))
        image_path, label_path = (self.folder / name / f"{variant.name}.nii.gz" for name in (IMAGES, LABELS))
        axis = volume.geometry.axis
        write_nifti(image_path, source, from_planes(image, axis), provenance=self.provenance)
        write_nifti(label_path, source, from_planes(values[maps], axis), np.uint16, self.provenance)
        return image_path

    def _write_pictures(
        self, variant: Variant, slices: list[np.ndarray], maps: np.ndarray, values: np.ndarray
    ) -> Path:
        volume = variant.file.condition
        if values.max() > np.iinfo(np.uint8).max:
            raise UserError(f"{volume.source}: value {values.max()} does not fit into a PNG of 8 bits")
        image_path, label_path = (self.folder / name / f"{variant.name}.png" for name in (IMAGES, LABELS))
        text = self.provenance.png(variant.file.path, **_facts(variant))
        write_picture(
            image_path, restore_orientation(image_plane(slices[0], volume), volume.orientation), text
        )
        label = restore_orientation(values[maps[0]].astype(np.uint8), volume.orientation)
        with atomic_write(label_path) as temporary:
            Image.fromarray(label).save(temporary, pnginfo=text)
        return image_path

    def _record(self, variant: Variant, name: str, maps: np.ndarray) -> dict[str, Any]:
        volume = variant.file.condition
        own = np.stack([label_plane(plane, volume) for plane in self.dataset.original(variant.file)])
        counts = overlap_counts(torch.from_numpy(maps), torch.from_numpy(own), len(self.dataset.classes))
        dice = mean_dice(counts)  # NaN for maps without structures
        partner = None if variant.partner is None else str(variant.partner.path)
        return {
            "name": name,
            "source": str(volume.source),
            "partner": partner,
            "partner_weight": variant.draw.weight if partner else 0.0,
            "dice_with_source": 0.0 if math.isnan(dice) else round(dice, 4),
        }


def _facts(variant: Variant) -> dict[str, Any]:
    """Returns what an image's record says apart from its condition."""
    partner = {} if variant.partner is None else {"partner": variant.partner.path.name}
    return {"variant": variant.name, **partner}

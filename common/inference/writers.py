"""An evaluator's predictions, gathered file by file."""

from __future__ import annotations

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
from common.data.samples import restore_orientation, stem
from common.data.slice_cache import CachedVolume, SliceReader
from common.data.slice_geometry import Frame, from_planes, planes_shape, to_planes
from common.data.transforms import unfit_square
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
    """Holds predictions until a file's last slice is there, then has the file written.

    Args:
        files: the positions of each file's slices, in the file's order.

    Attributes:
        written: the files written so far.
    """

    def __init__(self, files: Mapping[Path, Sequence[int]]) -> None:
        self.files = dict(files)
        self.written: list[Path] = []
        self._source = {position: file for file, positions in files.items() for position in positions}
        self._slices: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Takes the predictions of every iteration; reports at the end."""
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
        """What is held of a prediction until its file is complete."""

    @abstractmethod
    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes the result for the file ``source`` from what was kept of its slices; returns its path."""

    @abstractmethod
    def report(self) -> None:
        """Says at the end what was written."""

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            self.add(int(item["sample"]), output["pred"])


class SliceWriter(FileCollector):
    """Writes each mask's CT as soon as an evaluator has given its last slice.

    Pictures become 8-bit PNG ([-1, 1] -> 0..255); volumes become NIfTI int16 in HU with the mask's affine,
    shape and compression. An existing file is replaced, whole. Each says that it is synthetic, and has a JSON
    file beside it (`common.provenance`).

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing; must not be the masks' own folder.
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
        check_apart(list(self.files), self.folder, "masks")

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The slice in [0, 1] at its mask's own size, (H, W) float32."""
        unit = from_network(prediction[0].float().cpu().numpy())
        return unfit_square(unit, *self.dataset.shapes[position], self.dataset.fit)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """One PNG or NIfTI file, and its JSON."""
        sample = self.dataset.samples[self.files[source][0]]
        turned = [restore_orientation(array, sample.orientation) for array in slices]
        path = self.folder / result_name(source)
        if is_volume(source):
            hu = to_hu(np.stack(turned, axis=-1), self.window)
            write_nifti(path, open_volume(source), hu, provenance=self.provenance)
        else:
            write_picture(path, turned[0], self.provenance.png(source))
        self.provenance.write_beside(path, source)
        return path

    def report(self) -> None:
        """One line: how many files, where."""
        print(f"{len(self.written)} CT files for {len(self.files)} masks in {self.folder}")


def check_apart(sources: list[Path], folder: Path, what: str) -> None:
    """Refuses to write beside or into the sources: results bear the same names.

    Raises:
        UserError: ``folder`` is a source's folder, or a source itself (a DICOM series).
    """
    taken = {place.resolve() for source in sources for place in (source, source.parent)}
    if folder.resolve() in taken:
        raise UserError(f"{folder}: holds the {what} themselves; choose another --output_dir")


def result_name(source: Path) -> str:
    """A result's file name: PNG for pictures, NIfTI for volumes, compressed unless the source is .nii."""
    if not is_volume(source):
        return f"{stem(source)}.png"
    return stem(source) + (".nii" if source.name.lower().endswith(".nii") else ".nii.gz")


def write_picture(path: Path, unit: np.ndarray, text: PngInfo) -> None:
    """[0, 1] (H, W) as 8-bit PNG with these text chunks, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(np.rint(unit * 255).astype(np.uint8)).save(temporary, pnginfo=text)


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
        shown = numbers.wanted[: check_int("grid", grid)]
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


_WHITE = np.float32(65535)


def kept(prediction: Tensor) -> np.ndarray:
    """Channel 0 of a prediction (C, S, S) in [-1, 1] as the store keeps images: uint16, 0..65535 for 0..1."""
    unit = from_network(prediction[0].float().cpu().numpy())
    return np.rint(unit * _WHITE).astype(np.uint16)


def plane_of(square: np.ndarray, volume: CachedVolume) -> np.ndarray:
    """A kept square (S, S) as the plane (h, w) of the source that it was cut from, float32 in [0, 1].

    Pixels beyond the crop are 0.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    return np.clip(frame.image_back(square / _WHITE, 0.0), 0.0, 1.0)


def assembled(squares: Iterable[np.ndarray], volume: CachedVolume, scale: Window) -> np.ndarray:
    """Kept squares as planes (N, h, w) of the source, int16: ``scale`` is what 0 and 1 become (HU)."""
    result = np.empty(planes_shape(volume.shape, volume.geometry.axis), np.int16)
    for square, plane in zip(squares, result, strict=True):
        plane[:] = to_hu(plane_of(square, volume), scale)
    return result


def real_planes(volume: CachedVolume, scale: Window) -> np.ndarray:
    """A stored image as `assembled` gives a generated one: of the same range and resolution."""
    reader = SliceReader()
    unit = (reader.image(volume, index) for index in range(volume.depth))
    return assembled((square * _WHITE for square in unit), volume, scale)


def condition_planes(volume: CachedVolume, table: np.ndarray | None) -> tuple[Volume, np.ndarray]:
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


FLICKER_FILE = "flicker.json"
# The one part that is measured where no label tells structures apart.
EVERYWHERE = ("everywhere",)


class VolumeWriter(FileCollector):
    """Writes each label file's image as soon as an evaluator has given its last slice.

    Volumes become NIfTI int16 with shape and affine of the label file, pictures 8-bit PNG (0..255 for 0..1).
    An existing file is replaced, whole. Each says that it is synthetic, and has a JSON file beside it
    (`common.provenance`). Of each volume flicker and columns are measured
    (`common.inference.slice_consistency`), said in one line and put into ``flicker.json``: as ``generated``,
    as ``smoothed`` where that is asked for, and of the ``real`` image where there is one, brought to the
    range and resolution of the generated one.

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing; must not be the labels' own folder.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis; 0 for none.
        provenance: what makes the images.
    Raises:
        UserError: ``output_dir`` is the labels' folder, or ``smooth_slices`` makes no sense.
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
        check_apart(list(self.files), self.folder, "labels")
        self.flicker: dict[str, dict[str, dict[str, Flicker]]] = {}
        self._converted = {file.path: file for file in dataset.converted}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The image in 16 bits, (S, S): what it takes at its file's size it takes one file at a time."""
        return kept(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """One PNG or NIfTI file, and its JSON."""
        path = self.folder / result_name(source)
        if is_volume(source):
            self._write_volume(source, slices, path)
        else:
            condition = self._converted[source].condition
            unit = plane_of(slices[0], condition)
            upright = restore_orientation(unit, condition.orientation)
            write_picture(path, upright, self.provenance.png(source))
        self.provenance.write_beside(path, source, smooth_slices=self.sigma)
        return path

    def report(self) -> None:
        """``flicker.json`` for volumes; one line: how many files, in which unit, where."""
        if self.flicker:
            write_json(self.folder / FLICKER_FILE, self._plain())
        number = len(self.files)
        print(f"{len(self.written)} images ({self.scale}) for {number} label files in {self.folder}")

    def _write_volume(self, source: Path, slices: list[np.ndarray], path: Path) -> None:
        file = self._converted[source]
        place, classes = condition_planes(file.condition, file.table)  # (N, h, w)
        image = assembled(slices, file.condition, self.scale.window)
        mm = file.condition.slice_mm
        found = {"generated": flicker(image, classes, self.classes, mm)}
        if self.sigma:
            image = smooth_across(image, classes, self.sigma)
            found["smoothed"] = flicker(image, classes, self.classes, mm)
        voxels = from_planes(image, file.condition.geometry.axis)
        write_nifti(path, place, voxels, provenance=self.provenance)
        if file.real is not None:
            found["real"] = flicker(real_planes(file.real, self.scale.window), classes, self.classes, mm)
        self.flicker[path.name] = found
        line = "; ".join(f"{name} {parts[STRUCTURES]}" for name, parts in found.items())
        print(f"{path.name}: flicker in {self.scale.unit}: {line}")

    def _plain(self) -> dict[str, Any]:
        volumes = {
            name: {
                kind: {part: value.plain() for part, value in parts.items()} for kind, parts in found.items()
            }
            for name, found in self.flicker.items()
        }
        return {"unit": self.scale.unit, "smooth_slices": self.sigma, "volumes": volumes}


ORDER = {name: value for value, name in enumerate(HEART_STRUCTURES, start=1)}


def map_plane(prediction: Tensor, volume: CachedVolume) -> np.ndarray:
    """The class of each pixel of the source's plane (h, w), uint8, from logits behind an image (2 + K, S, S).

    The probabilities are brought to the plane's size, linearly, and the likeliest class is taken there: so
    borders are as smooth as the network drew them. Beyond the crop is background.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    shares = prediction[1:].float().softmax(dim=0).cpu().numpy()  # (K + 1, S, S)
    planes = [frame.image_back(share, 1.0 if k == 0 else 0.0) for k, share in enumerate(shares)]
    return np.argmax(planes, axis=0).astype(np.uint8)


def given_plane(label: np.ndarray, volume: CachedVolume) -> np.ndarray:
    """A class map (S, S) as the source's plane (h, w), nearest pixel."""
    return Frame.of(volume.geometry, volume.shape, volume.spacing).label_back(label, 0)


def values_of_classes(
    file: Converted, classes: Sequence[str], others: Sequence[Converted] = ()
) -> np.ndarray:
    """What each class is called in the file's own values: uint16 (K + 1,), 0 for background.

    A structure that the file does not have takes the value it has in the first of ``others`` that has it,
    else that of the convention the file follows: 1..7 in `STRUCTURES`' order, or MM-WHS's. ``whole_heart``,
    where it stands for several of the file's values, takes the first number that the file does not use.
    """
    values = np.zeros(len(classes) + 1, np.uint16)
    convention = MMWHS_VALUES if not _counts_through(file, classes) else ORDER
    free = next(n for n in count(1) if n not in file.condition.values)
    for index, name in enumerate(classes, start=1):
        if name == WHOLE_HEART:
            own = _values(file, index)
            values[index] = own[0] if len(own) == 1 else free
        else:
            known = (value for each in (file, *others) for value in _values(each, index))
            values[index] = next(known, convention[name])
    return values


def _values(file: Converted, index: int) -> list[int]:
    """The file's values that mean class ``index``."""
    return [int(file.condition.values[code]) for code in np.flatnonzero(np.asarray(file.table) == index)]


def _counts_through(file: Converted, classes: Sequence[str]) -> bool:
    """Whether the file's values are 1..7 in `STRUCTURES`' order, as far as it has them."""
    found = [(name, _values(file, index)) for index, name in enumerate(classes, start=1)]
    return all(values == [ORDER[name]] for name, values in found if values and name in ORDER)


IMAGES, LABELS, RECORD = "images", "labels", "pairs.json"


class PairWriter(FileCollector):
    """Writes each variant's image and label map as soon as an evaluator has given its last slice.

    Volumes become NIfTI with shape and affine of the file that the variant started from: ``images/NAME`` in
    int16 HU, ``labels/NAME`` in uint16, the file's own label values. Pictures become 8-bit PNG. The label map
    is what the generator drew beside the image; of a generator that draws images alone it is the perturbed
    map that it drew from. ``pairs.json`` says what each pair was made of. Images and maps say that they are
    synthetic; an image has a JSON file beside it (`common.provenance`).

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis, within structures; 0 for none.
        provenance: what makes the pairs.
    Raises:
        UserError: ``output_dir`` holds the labels themselves, or ``smooth_slices`` makes no sense.
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
        for place in (self.folder, self.folder / IMAGES, self.folder / LABELS):
            check_apart(sources, place, "labels")
        self.pairs: list[dict[str, Any]] = []
        self._variants = {Path(variant.name): variant for variant in dataset.variants}
        self._maps: dict[int, np.ndarray] = {}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The image in 16 bits, (S, S). Its map is kept apart, as a plane of the source."""
        channels = len(self.dataset.classes) + 2
        if len(prediction) not in (1, channels):
            raise UserError(
                f"the model draws {len(prediction)} channels where image and map of {channels - 2} classes "
                f"are {channels}; give the model's own configs"
            )
        volume = self._variants[self._source[position]].file.condition
        drawn = len(prediction) == channels
        condition = self.dataset.condition(position)
        self._maps[position] = map_plane(prediction, volume) if drawn else given_plane(condition, volume)
        return kept(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Two files and the image's JSON; returns the image's."""
        variant = self._variants[source]
        maps = np.stack([self._maps.pop(position) for position in self.files[source]])  # (N, h, w)
        others = [each.file for each in self.dataset.variants]
        values = values_of_classes(variant.file, self.dataset.classes, others)
        volume = is_volume(variant.file.path)
        path = (self._write_volumes if volume else self._write_pictures)(variant, slices, maps, values)
        self.provenance.write_beside(path, variant.file.path, **_facts(variant))
        self.pairs.append(self._record(variant, path.name, maps))
        return path

    def report(self) -> None:
        """``pairs.json``, and one line: how many pairs, in which unit, where."""
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
        image = assembled(slices, volume, self.scale.window)
        if self.sigma:
            image = smooth_across(image, maps, self.sigma)
        source = Volume.from_file(volume.source)
        place = replace(source, array=np.empty((0, 0, 0)))
        paths = [self.folder / folder / f"{variant.name}.nii.gz" for folder in (IMAGES, LABELS)]
        voxels = [from_planes(planes, volume.geometry.axis) for planes in (image, values[maps])]
        write_nifti(paths[0], place, voxels[0], provenance=self.provenance)
        write_nifti(paths[1], place, voxels[1], np.uint16, self.provenance)
        return paths[0]

    def _write_pictures(
        self, variant: Variant, slices: list[np.ndarray], maps: np.ndarray, values: np.ndarray
    ) -> Path:
        volume = variant.file.condition
        if values.max() > np.iinfo(np.uint8).max:
            raise UserError(f"{volume.source}: value {values.max()} does not fit into a PNG of 8 bits")
        image, label = (self.folder / folder / f"{variant.name}.png" for folder in (IMAGES, LABELS))
        text = self.provenance.png(variant.file.path, **_facts(variant))
        write_picture(image, restore_orientation(plane_of(slices[0], volume), volume.orientation), text)
        marks = restore_orientation(values[maps[0]].astype(np.uint8), volume.orientation)
        with atomic_write(label) as temporary:
            Image.fromarray(marks).save(temporary, pnginfo=text)
        return image

    def _record(self, variant: Variant, name: str, maps: np.ndarray) -> dict[str, Any]:
        volume, own = variant.file.condition, self.dataset.original(variant.file)
        there = np.stack([given_plane(plane, volume) for plane in own])  # (N, h, w)
        counts = overlap_counts(torch.from_numpy(maps), torch.from_numpy(there), len(self.dataset.classes))
        overlap = mean_dice(counts)
        partner = None if variant.partner is None else str(variant.partner.path)
        return {
            "name": name,
            "source": str(volume.source),
            "partner": partner,
            "partner_weight": variant.draw.weight if partner else 0.0,
            "dice_with_source": round(overlap, 4) if overlap == overlap else 0.0,
        }


def _facts(variant: Variant) -> dict[str, Any]:
    """What the image's record says beside its condition."""
    partner = {} if variant.partner is None else {"partner": variant.partner.path.name}
    return {"variant": variant.name, **partner}

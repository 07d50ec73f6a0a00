"""Writers of volumes: an evaluator's predictions become NIfTI files with a source's geometry.

`VolumeWriter` writes an image for each label file, `PairWriter` images with their label maps. Label files
that are pictures give PNG files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.labels import MMWHS_VALUES, WHOLE_HEART
from common.data.labels import STRUCTURES as HEART_STRUCTURES
from common.data.samples import is_volume, restore_orientation
from common.data.slice_cache import CachedVolume, SliceReader
from common.data.slice_geometry import Frame, from_planes, planes_shape, to_planes
from common.data.volume_io import Volume, write_nifti
from common.errors import UserError
from common.files import atomic_write, write_json
from common.inference.checkpoint import Scale
from common.inference.datasets import Converted, LabelSlices, LabelVariants, Variant
from common.inference.slice_consistency import STRUCTURES, Flicker, check_sigma, flicker, smooth_across
from common.inference.writers import FileCollector, check_output_dir, result_name, write_picture
from common.metrics.segmentation import mean_dice, overlap_counts
from common.provenance import UNKNOWN, Provenance

WHITE = np.float32(65535)
"""The value of 1 in 16 bits."""


def quantized(prediction: Tensor) -> np.ndarray:
    """Returns channel 0 of a prediction (C, S, S) in [-1, 1] as the slice cache stores images: uint16."""
    unit = from_network(prediction[0].float().cpu().numpy())
    return np.rint(unit * WHITE).astype(np.uint16)


def image_plane(square: np.ndarray, volume: CachedVolume) -> np.ndarray:
    """Returns a `quantized` square (S, S) as a plane (h, w) of its source, float32 in [0, 1].

    Pixels that the crop left out are 0.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    return np.clip(frame.image_back(square / WHITE, 0.0), 0.0, 1.0)


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
    return image_planes((square * WHITE for square in unit), volume, scale)


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
    counted = all(own_values == [ORDER[name]] for name, own_values in own if own_values and name in ORDER)
    convention = ORDER if counted else MMWHS_VALUES
    for index, (name, own_values) in enumerate(own, start=1):
        if name == WHOLE_HEART:
            free = next(n for n in count(1) if n not in file.condition.values)
            values[index] = own_values[0] if len(own_values) == 1 else free
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

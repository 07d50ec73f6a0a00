"""Data sets of conditions, slice by slice: masks, label maps, images, and perturbed label maps."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.data.image_io import read_mask
from common.data.intensity import to_network
from common.data.label_perturbation import (
    PartnerSampler,
    Perturbation,
    PerturbationDraw,
    make_perturbation,
    perturb_map,
)
from common.data.labels import LabelMap, LabelSet
from common.data.layouts import (
    expand,
    files_by_stem,
    find_volumes,
    mask_file,
    no_images,
    paired_files,
    warn_of_left_out,
    without_ending,
)
from common.data.patients import patient_of
from common.data.replay import Transform, Transforms, flatten_transforms, noise_coordinates
from common.data.samples import ORIENTATIONS, Sample, is_volume, stem, with_values
from common.data.slice_cache import CachedVolume, SliceCache, SliceReader, check_same_grid
from common.data.slice_geometry import (
    FileValues,
    Geometry,
    Intensity,
    plane_spacing,
    planes_shape,
)
from common.data.transforms import FitSquared, LoadSliced, find_transform
from common.data.volume_io import open_volume
from common.errors import UserError
from common.rng import make_rng

logger = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]


class MaskSlices(Dataset):
    """A folder of masks (PNG, NIfTI slices or volumes) as single slices.

    Items hold ``label`` (1, S, S) float32 {0, 1} and ``sample``, the index in ``samples``. All masks are read
    and checked at construction, before anything is generated.

    Args:
        input_dir: folder of masks; every volume is taken as its axial slices.
        preprocessing: the generator's own, see `common.data.transforms.preprocessing_of_model`. Masks go
            through its transforms of ``label``, and images return to the mask's size as `FitSquared` says.
        orientation: ``auto`` recognises COVID-SemiSeg's folders and takes other pictures as upright; or a key
            of `common.data.samples.ORIENTATIONS`.
        mask_threshold: of soft masks: values of at least this are lesion; None for the rule of the folder's
            layout, which for plain masks is any non-zero value.
        ignore_value: values that are no lesion, see `common.data.mask_values`.
        empty_masks: what its training did with masks without lesion; after ``drop`` a warning counts such
            masks, for which the generator was never trained.
    Raises:
        UserError: the folder is missing or holds no masks, two have one name, or one cannot be read.
    """

    def __init__(
        self,
        input_dir: str | os.PathLike[str] | None,
        preprocessing: Transforms,
        orientation: str = "auto",
        mask_threshold: float | None = None,
        empty_masks: str = "keep",
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        square = find_transform(preprocessing, FitSquared)
        self.fit = "stretch" if square is None else square.fit
        if input_dir is None:
            raise UserError("inference needs --input_dir: a folder of masks (PNG or NIfTI)")
        if orientation != "auto" and orientation not in ORIENTATIONS:
            raise UserError(
                f"orientation {orientation!r} is unknown; choose one of auto, {', '.join(ORIENTATIONS)}"
            )
        files = files_by_stem(Path(input_dir)).values()
        if not files:
            raise no_images(Path(input_dir), "holds no masks; put masks there")
        warn_of_left_out(Path(input_dir), files)
        changes: dict[str, Any] = {} if orientation == "auto" else {"orientation": orientation}
        records = [replace(mask_file(file), **changes) for file in files]
        records = with_values(records, mask_threshold=mask_threshold, ignore_value=ignore_value)
        self.samples: list[Sample] = [sample for record in records for sample in expand(record)]
        self.shapes: list[tuple[int, int]] = []  # (H, W) of each mask, upright
        self.labels = self._read(label_transforms(preprocessing))  # (N, 1, S, S)
        if empty_masks == "drop":
            self._warn_of_empty()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"label": self.labels[index], "sample": index, **self._noise_position(self.samples[index])}

    @staticmethod
    def _noise_position(sample: Sample) -> dict[str, Any]:
        name = stem(sample.image)
        if sample.index is None:
            return noise_coordinates(name)
        return noise_coordinates(name, sample.index * open_volume(sample.image).spacing[2])

    def _read(self, transforms: Sequence[Transform]) -> Tensor:
        labels = []
        for sample in self.samples:
            mask = read_mask(sample)
            self.shapes.append((mask.shape[0], mask.shape[1]))
            item: dict[str, Any] = {"label": mask[None]}  # (1, H, W)
            for transform in transforms:
                item = transform(item)
            labels.append(torch.as_tensor(np.asarray(item["label"]), dtype=torch.float32))
        return torch.stack(labels)

    def _warn_of_empty(self) -> None:
        empty = [position for position, label in enumerate(self.labels) if not label.any()]
        if empty:
            logger.warning(
                "%d of %d masks are empty, the first %s: the model was trained without such slices, so its "
                "images of them are unreliable; train with --empty_masks keep for them",
                len(empty),
                len(self),
                self.samples[empty[0]].name,
            )


def label_transforms(preprocessing: Transforms) -> list[Transform]:
    """Returns the transforms of a preprocessing that change ``label``, in a form that takes it alone.

    Example:
        >>> square = FitSquared(["image", "label"], 8)
        >>> [alone] = label_transforms([LoadSliced("image"), square])
        >>> int(alone({"label": np.ones((1, 4, 6), np.uint8)})["label"].sum())
        40
    """
    chosen = []
    for transform in flatten_transforms(preprocessing):
        if "label" in getattr(transform, "keys", ()) and not isinstance(transform, LoadSliced):
            alone: Any = copy.copy(transform)
            alone.allow_missing_keys = True
            chosen.append(alone)
    return chosen


def files_of(samples: Sequence[Sample]) -> dict[Path, list[int]]:
    """Returns the positions of each file's slices, in order."""
    positions: dict[Path, list[int]] = {}
    for position, sample in enumerate(samples):
        positions.setdefault(sample.image, []).append(position)
    return positions


class Source(NamedTuple):
    """A condition file (label map, or image for models conditioned on images) and its real image."""

    condition: Path
    real: Path | None = None


def find_sources(
    label_file: PathLike | None = None,
    input_dir: PathLike | None = None,
    dataset_dir: PathLike | None = None,
    ct_file: PathLike | None = None,
    info: Mapping[str, Any] | None = None,
) -> list[Source]:
    """Finds the condition files of an inference, sorted by name; exactly one of the first three is given.

    Args:
        label_file: a volume, a DICOM series folder or a picture.
        input_dir: a folder of label files only.
        dataset_dir: a data set in one of the layouts of `common.data.layouts.find_volumes`: its labels, each
            with its real image.
        ct_file: the real image of ``label_file``, to compare with.
        info: the facts beside the model; if its condition is an image, the images of ``dataset_dir`` are
            taken from the folder that it was trained on.
    Raises:
        UserError: none or several are given, no file is found, or two results would have one name.
    """
    given = {"label_file": label_file, "input_dir": input_dir, "dataset_dir": dataset_dir}
    names = [f"--{name}" for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise UserError(
            f"inference works on one of --label_file, --input_dir and --dataset_dir; "
            f"{' and '.join(names) if names else 'none'} was given"
        )
    if ct_file is not None and label_file is None:
        raise UserError("--ct_file is the real image of one label file; give it with --label_file")
    if label_file is not None:
        return [Source(_existing(label_file), None if ct_file is None else _existing(ct_file))]
    if dataset_dir is not None:
        sources = _in_data_set(Path(dataset_dir), info or {})
        _check_names(sources)
        return sources
    folder = Path(str(input_dir))
    files = files_by_stem(folder)
    if not files:
        raise no_images(folder, "holds no label files; put label maps there")
    warn_of_left_out(folder, files.values())
    return [Source(files[name]) for name in sorted(files)]


def _in_data_set(folder: Path, info: Mapping[str, Any]) -> list[Source]:
    if info.get("condition") == "image":
        pairs = paired_files(folder, folder / info["condition_dir"], info["image_dir"])
        return [Source(condition, image) for image, condition in pairs]
    records = find_volumes(folder)
    return [Source(record.mask, record.image) for record in records if record.mask is not None]


def _existing(path: PathLike) -> Path:
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; check the path")
    return Path(path)


def _check_names(sources: Sequence[Source]) -> None:
    known: dict[str, Path] = {}
    for source in sources:
        name = stem(source.condition)
        if name in known:
            raise UserError(
                f"{source.condition}: {known[name]} has the same name; give one of them at a time, "
                "with --label_file"
            )
        known[name] = source.condition


DEFAULT_SIZE = 128
DEFAULT_MAP = "default"


@dataclass(frozen=True)
class Converted:
    """A source in the slice cache.

    Attributes:
        condition: its label map or image.
        table: uint8, the class of each code of the label; None if the condition is an image.
        real: the real image, if there is one.
    """

    condition: CachedVolume
    table: np.ndarray | None
    real: CachedVolume | None

    @property
    def path(self) -> Path:
        """The condition's file."""
        return self.condition.source


class LabelSlices(Dataset[dict[str, Any]]):
    """Label files, or condition images, as single slices.

    Items hold ``label`` float32 (1, S, S), class indices 0..K or an image in [-1, 1], and the position
    ``sample``. Files go through the same slice cache as in training, with the model's geometry, so the
    network sees the same input. All files are read and checked at construction, before anything is generated;
    none of them stays in memory.

    Args:
        sources: the files.
        info: the facts beside the model (`common.inference.checkpoint.model_info`).
        label_map: meaning of the files' values, see `LabelSet`; None for the map that the model was trained
            with, ``default`` for `LabelSet`'s own.
        store_dir: where converted slices are kept; None for a temporary folder.
        hu_offset, source_range, mask_threshold, ignore_value: what the values in the files mean, see
            `common.data.slice_geometry.FileValues`.

    Attributes:
        classes: the model's structures; () if the condition is an image.
        converted: the sources, in order.
        files: each file's positions.
    Raises:
        UserError: a file cannot be read, is not a label map, or has values without a meaning for the model.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        info: Mapping[str, Any],
        label_map: LabelMap | None = None,
        store_dir: str | os.PathLike[str] | None = None,
        hu_offset: float | None = None,
        source_range: Sequence[float] | None = None,
        mask_threshold: float | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        geometry = geometry_of(info)
        self.size = geometry.size
        label_set = label_set_of(info, label_map)
        self.classes: tuple[str, ...] = () if label_set is None else label_set.classes
        store = SliceCache(self._temporary() if store_dir is None else store_dir, geometry)
        values = FileValues.of(hu_offset, source_range, mask_threshold, ignore_value)
        self.converted = _converted(store, sources, label_set, intensity_of(info), values)
        self.files: dict[Path, list[int]] = {}
        self._places: list[tuple[int, int]] = []  # number of the file, slice in it
        for number, file in enumerate(self.converted):
            start = len(self._places)
            self._places += [(number, index) for index in range(file.condition.depth)]
            self.files[file.path] = list(range(start, len(self._places)))
        self._reader = SliceReader()
        if label_set is not None:
            self._warn_of_empty(int(info.get("min_pixels", 1)))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number, index = self._places[position]
        file = self.converted[number]
        if file.table is None:
            label = to_network(self._reader.image(file.condition, index))
        else:
            label = file.table[self._reader.label(file.condition, index)].astype(np.float32)
        coordinates = noise_position(file.condition, index, stem(file.path))
        return {"label": torch.from_numpy(label[None]), "sample": position, **coordinates}  # (1, S, S)

    def _warn_of_empty(self, least: int) -> None:
        """Warns of slices that hold fewer pixels than the model's training asked for."""
        counts = {
            file.path: int((np.asarray(file.condition.counts)[:, file.table > 0].sum(axis=1) < least).sum())
            for file in self.converted
            if file.table is not None and file.table.any()  # else `_checked` has warned
        }
        few = {path: count for path, count in counts.items() if count}
        if few:
            logger.warning(
                "%d of %d slices hold fewer than %d pixels of the model's structures, the first in %s: it "
                "was trained without such slices, so its images of them are unreliable; train with "
                "--min_pixels 0 for them",
                sum(few.values()),
                len(self),
                least,
                next(iter(few)),
            )

    def _temporary(self) -> Path:
        """Makes a folder that is removed with this object, or at the latest with this process."""
        folder = Path(tempfile.mkdtemp(prefix="slices-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        return folder


def noise_position(volume: CachedVolume, index: int, name: str) -> dict[str, Any]:
    """Returns a stored slice's coordinates in the noise of a name, see `common.data.replay`."""
    return noise_coordinates(name, *([index * volume.slice_mm] if is_volume(volume.source) else []))


def geometry_of(info: Mapping[str, Any]) -> Geometry:
    """Returns how a model's slices are cut.

    Example:
        >>> geometry_of({"image_size": 96, "axis": "coronal"}).axis
        'coronal'
    """
    names = ("axis", "spacing", "interpolation", "fit")
    size = int(info.get("image_size", DEFAULT_SIZE))
    return Geometry(size, **{name: info[name] for name in names if name in info})


def intensity_of(info: Mapping[str, Any]) -> Intensity:
    """Returns the intensity scaling that a model was trained with."""
    return Intensity(**info["intensity"]) if "intensity" in info else Intensity()


def label_set_of(info: Mapping[str, Any], label_map: LabelMap | None = None) -> LabelSet | None:
    """Returns a model's classes with the label map to use; None if its condition is an image."""
    if info.get("condition", "label") == "image":
        return None
    label_set = LabelSet.from_state(info["label_set"]) if info.get("label_set") else LabelSet()
    if label_map is None:
        return label_set
    return label_set.with_map(None if label_map == DEFAULT_MAP else label_map)


def _converted(
    store: SliceCache,
    sources: Sequence[Source],
    label_set: LabelSet | None,
    intensity: Intensity,
    values: FileValues,
) -> list[Converted]:
    image, label = values.image(intensity), values.label()
    requests = [(image if label_set is None else label)(source.condition) for source in sources]
    real = [image(source.real) for source in sources if source.real is not None]
    volumes = store.convert([*requests, *real])
    images = iter(volumes[len(sources) :])
    return [
        _checked(condition, label_set, None if source.real is None else next(images))
        for source, condition in zip(sources, volumes, strict=False)  # the rest are the real images
    ]


def _checked(condition: CachedVolume, label_set: LabelSet | None, real: CachedVolume | None) -> Converted:
    if real is not None:
        check_same_grid(real, condition)
    if label_set is None:
        return Converted(condition, None, real)
    table = label_set.table(condition.values, condition.source)
    if is_volume(condition.source) and not table.any():
        logger.warning(
            "%s: holds none of the model's structures (%s)", condition.source, ", ".join(label_set.classes)
        )
    return Converted(condition, table, real)


def _remove(folder: Path, owner: int) -> None:
    """Removes the folder, unless this process was forked from its owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def data_settings(info: Mapping[str, Any], label_map: LabelMap | None = None) -> dict[str, Any]:
    """Settings of a model's training for `LoadCachedSliced` and `StructureData`.

    Args:
        info: the facts beside the model (`common.inference.checkpoint.model_info`); empty for the defaults.
        label_map: meaning of the files' values if it differs from the training set's; ``default`` for
            `LabelSet`'s own.

    Example:
        >>> data_settings({"image_size": 96})["image_size"]
        96
    """
    geometry, intensity = geometry_of(info), intensity_of(info)
    limits = [intensity.lower, intensity.upper]
    labels = label_set_of(info, label_map)
    return {
        "image_size": geometry.size,
        "axis": geometry.axis,
        "spacing": geometry.spacing,
        "interpolation": geometry.interpolation,
        "fit": geometry.fit,
        "window": limits if intensity.kind == "window" else "angiography",
        "percentiles": limits if intensity.kind == "percentile" else None,
        "label_set": labels,
        "condition_dir": info.get("condition_dir"),
        "image_dir": info.get("image_dir", "images"),
    }


@dataclass(frozen=True)
class Variant:
    """One perturbed version of a label file.

    Attributes:
        name: unique name of its results, without suffix.
        file: the label it starts from.
        draw: the parameters of the perturbation.
        partner: the file of another patient that is mixed in, if any.
    """

    name: str
    file: Converted
    draw: PerturbationDraw
    partner: Converted | None


class LabelVariants(Dataset[dict[str, Any]]):
    """Perturbed variants of label files as single slices, laid out as `LabelSlices`.

    A volume is perturbed as a whole, so its slices stay consistent. A variant depends on ``seed``, the file's
    name and the variant's number, and through its partner on the other files.

    Args:
        originals: the label files.
        perturb: the strengths: a dict of `Perturbation` settings or the object.
        variants: number of variants of each file.
        seed: seed of all draws.

    Attributes:
        classes: the model's structures.
        variants: all variants, in order.
        files: each variant's positions, by its name as a path.
    Raises:
        UserError: ``variants`` is below 1, or the model's condition is an image.
    """

    def __init__(
        self,
        originals: LabelSlices,
        perturb: Perturbation | Mapping[str, float] | None = None,
        variants: int = 1,
        seed: int = 0,
    ) -> None:
        if not originals.classes:
            raise UserError("variants are perturbed label maps; the condition of this model is an image")
        if variants < 1:
            raise UserError(f"variants {variants}: give how many of each label file, at least 1")
        self.classes, self.size, self.seed = originals.classes, originals.size, seed
        self.perturb = make_perturbation(perturb) or Perturbation()
        self._originals, self._converted = originals, originals.converted
        self._partners = PartnerSampler([_sample(file.path) for file in self._converted])
        self.variants = [
            self._drawn(index, number)
            for index in range(len(self._converted))
            for number in range(1, variants + 1)
        ]
        self.files: dict[Path, list[int]] = {}
        self._places: list[tuple[int, int]] = []  # number of the variant, slice in it
        for number, variant in enumerate(self.variants):
            start = len(self._places)
            self._places += [(number, index) for index in range(variant.file.condition.depth)]
            self.files[Path(variant.name)] = list(range(start, len(self._places)))
        self._reader = SliceReader()
        self._perturbed_map: tuple[int, np.ndarray] = (-1, np.empty(0))  # of the variant read last

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        label = self.condition(position).astype(np.float32)
        number, index = self._places[position]
        variant = self.variants[number]
        coordinates = noise_position(variant.file.condition, index, variant.name)
        return {"label": torch.from_numpy(label[None]), "sample": position, **coordinates}  # (1, S, S)

    def condition(self, position: int) -> np.ndarray:
        """Returns the perturbed slice at ``position``, uint8 (S, S)."""
        number, index = self._places[position]
        if self._perturbed_map[0] != number:
            self._perturbed_map = number, self._perturbed(self.variants[number])
        return np.asarray(self._perturbed_map[1][index])

    def original(self, file: Converted) -> np.ndarray:
        """Returns a file's own class map, uint8 (N, S, S)."""
        stack = np.empty((file.condition.depth, self.size, self.size), np.uint8)
        for index, plane in enumerate(stack):
            plane[:] = np.asarray(file.table)[self._reader.label(file.condition, index)]
        return stack

    def _drawn(self, index: int, number: int) -> Variant:
        file = self._converted[index]
        name = without_ending(stem(file.path))
        random = make_rng(self.seed, "variant", name, number)
        draw = self.perturb.draw(random, self._shape(file), len(self.classes), aspect(file.condition))
        partner = self._partners.draw(index, random)
        other = None if partner is None or draw.weight == 0 else self._converted[partner]
        alike = other is not None and (other.condition.depth > 1) == (file.condition.depth > 1)
        return Variant(f"{name}_variant{number:02d}", file, draw, other if alike else None)

    def _shape(self, file: Converted) -> tuple[int, ...]:
        square = (self.size, self.size)
        return (file.condition.depth, *square) if file.condition.depth > 1 else square

    def _perturbed(self, variant: Variant) -> np.ndarray:
        """Returns the class map (N, S, S) of a variant; a single slice is perturbed in its plane."""
        stack = self.original(variant.file)
        other = None if variant.partner is None else self.original(variant.partner)
        if len(stack) > 1:
            return perturb_map(stack, variant.draw, other)
        return perturb_map(stack[0], variant.draw, None if other is None else other[0])[None]


def aspect(volume: CachedVolume) -> float:
    """Returns the distance of neighbouring stored slices in units of their pixels."""
    if volume.geometry.spacing is not None:
        return volume.slice_mm / volume.geometry.spacing
    extents = planes_shape(volume.shape, volume.geometry.axis)[1:]
    mm = plane_spacing(volume.spacing, volume.geometry.axis)
    sides = [extent * pixel for extent, pixel in zip(extents, mm, strict=True)]
    mean_side = {"stretch": float(np.mean(sides)), "pad": max(sides), "crop": min(sides)}[volume.geometry.fit]
    return volume.slice_mm * volume.geometry.size / mean_side


def _sample(path: Path) -> Sample:
    return Sample(path, None, patient_of(path, None, without_ending(stem(path))))

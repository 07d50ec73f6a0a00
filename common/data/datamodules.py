"""The one entry that configs call: a folder becomes train, validation and test pairs, and loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset, default_collate

from common.data.datasets import ImageDataset, PairDataset, SliceDataset
from common.data.image_layouts import AUTO, find_images
from common.data.intensity import Window, window_by_name
from common.data.intensity_standardization import Standardiser
from common.data.label_perturbation import Perturbation, PerturbedSliceDataset, make_perturbation
from common.data.labels import LabelMap, Labels, LabelSet
from common.data.layouts import find_samples, find_volumes, paired_files
from common.data.nodules import (
    BY_WINDOW,
    GRAYS,
    Balance,
    NoduleSample,
    NoduleScan,
    NoduleSliceDataset,
    find_nodule_scans,
    read_nodule_scan,
)
from common.data.patients import keep_scans_together, patient_of
from common.data.sampler import InfiniteBatchSampler
from common.data.samples import Sample, with_hu_offset
from common.data.slice_cache import CachedPair, SliceCache, cached_pair
from common.data.slice_geometry import Geometry, Intensity, Request
from common.data.spaced_slices import spaced_slices
from common.data.splits import SplitData
from common.data.transforms import Augmentation, augmentation
from common.errors import UserError

logger = logging.getLogger(__name__)


class PairData(SplitData[PairDataset]):
    """A data set, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, which
    is apart from the run's seed so that evaluating finds the same test patients whatever ``seed`` was.

    Args:
        dataset_dir: folder in one of the known layouts.
        image_size: side of the square slices in pixels.
        window: HU window: a preset's name or [lower, upper].
        standardise: ``none``, ``landmarks`` or ``histogram``, see `common.data.intensity_standardization`.
        augment: of the training split, see `common.data.transforms.augmentation`.
        seed: the run's seed (augmentation).
        empty_masks: ``drop`` or ``keep`` slices without lesion.
        min_lesion_pixels: what counts as empty: fewer lesion pixels than this at ``image_size``.
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout: see `common.data.layouts.find_samples`.
        patient_pattern: see `common.data.layouts.find_samples`.
        mask_values, mask_threshold: override the layout's mask convention.
        source_range: black and white of files that are not HU.
        hu_offset: what to add to volumes that are no HU, see `common.data.intensity.offset_to_hu`.
        apart: groups that form a split of their own.
        parts: which splits to load; evaluating with a saved standardiser needs ``("test",)`` alone.
        standardiser_state: of a trained model's metadata; then nothing is fitted.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.
        fit: how slices become square, see `common.data.transforms.fit_square`.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        image_size: int,
        window: str | Window | Sequence[float] = "lung",
        standardise: str = "none",
        augment: Augmentation | Mapping[str, float] | str | None = None,
        seed: int = 0,
        empty_masks: str = "drop",
        min_lesion_pixels: int = 1,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = "auto",
        patient_pattern: str | None = None,
        mask_values: Sequence[int] | None = None,
        mask_threshold: int | None = None,
        source_range: Sequence[float] | None = None,
        apart: Sequence[str] = ("doctor",),
        parts: Sequence[str] | None = None,
        standardiser_state: Mapping[str, Any] | None = None,
        hu_offset: float | None = None,
        trained: Mapping[str, Any] | None = None,
        fit: str = "pad",
    ) -> None:
        self.dataset_dir, self.image_size = Path(dataset_dir), int(image_size)
        self.fit, self.empty_masks = fit, empty_masks
        self.window = window_by_name(window)
        self._find = partial(_found, layout, patient_pattern, mask_values, mask_threshold, hu_offset)
        self.patient_pattern = patient_pattern
        self.splits = self.split_by(self._find(dataset_dir), fractions, split_seed, apart, trained)
        self.standardiser = (
            Standardiser(standardise, self.window)
            if standardiser_state is None
            else Standardiser.from_state(standardiser_state)
        )
        self._load = partial(
            PairDataset,
            image_size=self.image_size,
            window=self.window,
            standardiser=self.standardiser,
            seed=seed,
            empty_masks=empty_masks,
            min_lesion_pixels=min_lesion_pixels,
            source_range=source_range,
            fit=fit,
        )
        self.datasets: dict[str, PairDataset] = {}
        fitted = standardiser_state is None
        for name in self._wanted(parts, fitted and standardise != "none"):
            training = name == "train"
            drawn = augmentation(augment, len(self.splits[name])) if training else None
            self.datasets[name] = self._load(
                self.splits[name], fit_standardiser=fitted and training, augment=drawn
            )
        logger.info(self.summary())

    def whole(self, folder: str | os.PathLike[str]) -> PairDataset:
        """All slices of another folder, prepared like this set's: patients kept apart from all training.

        Raises:
            UserError: a bad folder or file, or one of its patients is in the training split.
        """
        samples = self._find(folder)
        self.refuse_training_patients(samples, folder)
        return self._load(samples)

    def summary(self) -> str:
        """One line: slices and patients of each split, and what was dropped."""
        dropped = sum(part.dropped for part in self.datasets.values())
        return f"{self.dataset_dir}: {self.counts()}" + (
            f"; dropped {dropped} slices with an empty mask" if dropped else ""
        )

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: window, look, value range, sizes, patients."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "nominal_hu": any(part.nominal_hu for part in self.datasets.values()),
            "value_range": [-1.0, 1.0],
            "image_size": self.image_size,
            "fit": self.fit,
            "empty_masks": self.empty_masks,
            "standardiser": self.standardiser.state(),
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }

    def _wanted(self, parts: Sequence[str] | None, fits: bool) -> list[str]:
        """The splits to load, train first: the standardiser, where it ``fits``, learns from it."""
        chosen = [
            name for name in self.splits if parts is None or name in parts or (fits and name == "train")
        ]
        return sorted(chosen, key=lambda name: name != "train")


def make_loader(
    dataset: Dataset[dict[str, Any]],
    stream: InfiniteBatchSampler,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Any]]:
    """An endless loader whose batches are those of ``stream``; the workers draw nothing themselves.

    A dataset with a ``collate`` of its own brings its batches together itself.
    """
    return DataLoader(
        dataset,
        batch_sampler=stream,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        collate_fn=getattr(dataset, "collate", None),
    )


def ordered_loader(
    dataset: Dataset[dict[str, Any]], batch_size: int, num_workers: int = 0
) -> DataLoader[dict[str, Any]]:
    """All of a dataset once, in order and unaugmented, for validation."""
    return DataLoader(
        dataset, batch_size, num_workers=num_workers, collate_fn=getattr(dataset, "collate", None)
    )


def _found(
    layout: str,
    patient_pattern: str | None,
    mask_values: Sequence[int] | None,
    mask_threshold: int | None,
    hu_offset: float | None,
    folder: str | os.PathLike[str],
) -> list[Sample]:
    """The folder's samples with the user's mask convention and offset."""
    samples = with_hu_offset(find_samples(folder, layout, patient_pattern), hu_offset)
    return [_with_convention(sample, mask_values, mask_threshold) for sample in samples]


def _with_convention(sample: Sample, mask_values: Sequence[int] | None, mask_threshold: int | None) -> Sample:
    """The sample with the user's mask convention, where one was given."""
    if mask_threshold is not None:
        return replace(sample, mask_threshold=mask_threshold)
    if mask_values is not None:
        return replace(sample, mask_values=tuple(mask_values), mask_threshold=None)
    return sample


def example_batch(dataset: PairDataset | SliceDataset | NoduleSliceDataset, count: int) -> dict[str, Any]:
    """A batch of ``count`` pairs spread evenly over the dataset (all of a smaller one), always the same."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return dict(default_collate([dataset[int(place)] for place in places]))


class ImageData(SplitData[ImageDataset]):
    """A data set of images, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the whole set is split by ``split_seed``,
    whatever classes are chosen: a patient's part is the same for all models of a folder.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.image_layouts.find_images`.
        image_size: side of the square slices in pixels.
        classes: which classes to take, see `common.data.image_layouts.ImageSet.chosen`.
        fit: how slices become square, see `common.data.transforms.fit_square`.
        flips: double the training split by left-right flips, as paper C does: half of what a generator
            learns then has its heart at the right.
        window: HU window: a preset's name or [lower, upper].
        standardise: ``none``, ``landmarks`` or ``histogram``, see `common.data.intensity_standardization`.
        augment: of the training split, see `common.data.transforms.augmentation`.
        seed: the run's seed (augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout, patient_pattern: see `common.data.image_layouts.find_images`.
        source_range: black and white of files that are not HU.
        hu_offset: what to add to volumes that are no HU, see `common.data.intensity.offset_to_hu`.
        parts: which splits to load; None for all.
        standardiser_state: of a trained model's metadata; then nothing is fitted.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.
        slice_mm: of volumes only slices with lung, so far apart, see
            `common.data.spaced_slices.spaced_slices`; None for all.

    Attributes:
        class_names: the chosen classes; ``class`` in the batches is the place among them.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        image_size: int,
        classes: str | Sequence[str] = AUTO,
        fit: str = "pad",
        flips: bool = False,
        window: str | Window | Sequence[float] = "lung",
        standardise: str = "none",
        augment: Augmentation | Mapping[str, float] | str | None = None,
        seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = AUTO,
        patient_pattern: str | None = None,
        source_range: Sequence[float] | None = None,
        parts: Sequence[str] | None = None,
        standardiser_state: Mapping[str, Any] | None = None,
        hu_offset: float | None = None,
        trained: Mapping[str, Any] | None = None,
        slice_mm: float | None = None,
    ) -> None:
        self.dataset_dir, self.image_size = Path(dataset_dir), int(image_size)
        self.window, self.fit, self.flips = window_by_name(window), fit, flips
        self._find = partial(find_images, layout=layout, patient_pattern=patient_pattern, hu_offset=hu_offset)
        self.slice_mm = slice_mm
        found = self._find(dataset_dir)
        found = found._replace(samples=spaced_slices(found.samples, slice_mm))
        chosen = found.chosen(classes, dataset_dir)
        self.class_names = chosen.classes
        self.patient_pattern, self.layout = patient_pattern, layout
        named = chosen.samples if trained and trained.get("splits") else found.samples
        whole = self.split_by(named, fractions, split_seed, trained=trained)
        self.splits = {
            name: [sample for sample in part if sample.category in chosen.classes]
            for name, part in whole.items()
        }
        fitted = standardiser_state is None
        self.standardiser = (
            Standardiser(standardise, self.window)
            if standardiser_state is None
            else Standardiser.from_state(standardiser_state)
        )
        self._load = partial(
            ImageDataset,
            class_names=self.class_names,
            image_size=self.image_size,
            fit=fit,
            window=self.window,
            standardiser=self.standardiser,
            seed=seed,
            source_range=source_range,
        )
        self.datasets = {
            name: self._loaded(name, fitted, augmentation(augment, len(self.splits["train"])))
            for name in self._wanted(parts, fitted and standardise != "none")
        }
        logger.info(self.summary())

    def whole(self, folder: str | os.PathLike[str]) -> ImageDataset:
        """All images of this set's classes in another folder, prepared alike, of patients kept apart.

        Raises:
            UserError: a bad folder or file, none of the classes, or a patient of the training split.
        """
        found = self._find(folder)
        names = [name for name in self.class_names if name in found.classes] or self.class_names
        samples = spaced_slices(found.chosen(names, folder).samples, self.slice_mm)
        self.refuse_training_patients(samples, folder)
        return self._load(samples)

    def summary(self) -> str:
        """One line: images and patients of each split, and how many of each class."""
        return f"{self.dataset_dir}: {self.counts()}{self._flipped()}{self._by_class()}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: window, look, classes, sizes, patients."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "nominal_hu": any(part.nominal_hu for part in self.datasets.values()),
            "value_range": [-1.0, 1.0],
            "image_size": self.image_size,
            "classes": list(self.class_names),
            "fit": self.fit,
            "layout": self.layout,
            "flips": self.flips,
            "slice_mm": self.slice_mm,
            "standardiser": self.standardiser.state(),
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }

    def _loaded(self, name: str, fitted: bool, augment: Augmentation | None) -> ImageDataset:
        training = name == "train"
        return self._load(
            self.splits[name],
            flips=self.flips and training,
            fit_standardiser=fitted and training,
            augment=augment if training else None,
        )

    def _wanted(self, parts: Sequence[str] | None, fits: bool) -> list[str]:
        """The splits to load, train first: the standardiser, where it ``fits``, learns from it."""
        chosen = [
            name for name in self.splits if parts is None or name in parts or (fits and name == "train")
        ]
        return sorted(chosen, key=lambda name: name != "train")

    def _flipped(self) -> str:
        return " (train with its flips)" if self.flips and "train" in self.datasets else ""

    def _by_class(self) -> str:
        if len(self.class_names) < 2 or "train" not in self.datasets:
            return f"; class {', '.join(self.class_names)}"
        counts = self.train.counts()
        return "; train has " + ", ".join(f"{count} {name}" for name, count in counts.items())


CONDITIONS = ("label", "image")


class StructureData(SplitData[SliceDataset]):
    """A data set of images with label maps (or second images), split by patient and converted into slices.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``. The
    split depends on the files alone (each volume counts once): it is the same for all labels and filters.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.layouts.find_volumes`.
        image_size: side of the square slices in pixels.
        store_dir: where converted slices are kept.
        labels, label_map: the classes, see `common.data.labels.LabelSet`.
        coarse: probability that a training visit has chambers and myocardium merged into ``whole_heart``,
            which then is a further class: for labels that do not tell them apart.
        window: HU window: a preset's name or [lower, upper].
        percentiles: (lower, upper) per cent of each volume's own voxels become -1 and 1 instead, for MR.
        axis: ``axial``, ``coronal`` or ``sagittal``: the planes that are cut.
        spacing: pixel size in mm, cropped or padded to the square; None takes ``fit``.
        interpolation: of images: ``area`` or ``linear``; labels always take the nearest pixel.
        min_pixels: keep slices with at least so many pixels of the classes at ``image_size``; 0 for all.
        every: keep every n-th slice of a volume.
        augment: of the training split, see `common.data.transforms.augmentation`.
        perturb: the labels' perturbation; None or a dict of `Perturbation` settings or the object. Items then
            have the true label as ``annotation``, see `common.data.label_perturbation`.
        seed: the run's seed (augmentation, coarse labels, perturbation).
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout, patient_pattern: see `common.data.layouts.find_volumes`.
        condition: ``label``, or ``image``: ``label`` in the batches is the image of equal name in
            ``condition_dir``, in [-1, 1].
        condition_dir: a folder beside ``images/`` (``native``), or a path.
        image_dir: the images' folder, where the condition is an image.
        hu_offset: what to add to images that are no HU, see `common.data.intensity.offset_to_hu`; of no
            meaning with ``percentiles``.
        fit: how planes become square without ``spacing``: ``pad``, ``crop`` or ``stretch``.
        parts: which splits to convert and load; None for all.
        workers: of the conversion; None for all cores.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.

    Attributes:
        label_set: the classes; None where the condition is an image.
        intensity: what becomes -1 and 1.
        geometry: how slices are cut.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        image_size: int,
        store_dir: str | os.PathLike[str],
        labels: Labels = "all",
        label_map: LabelMap | None = None,
        coarse: float = 0.0,
        window: str | Window | Sequence[float] = "angiography",
        percentiles: Sequence[float] | None = None,
        axis: str = "axial",
        spacing: float | None = None,
        interpolation: str = "area",
        min_pixels: int = 1,
        every: int = 1,
        augment: Augmentation | Mapping[str, float] | str | None = None,
        seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = "auto",
        patient_pattern: str | None = None,
        condition: str = "label",
        condition_dir: str | os.PathLike[str] | None = None,
        parts: Sequence[str] | None = None,
        workers: int | None = None,
        perturb: Perturbation | Mapping[str, float] | None = None,
        image_dir: str = "images",
        hu_offset: float | None = None,
        trained: Mapping[str, Any] | None = None,
        fit: str = "pad",
    ) -> None:
        self.dataset_dir, self.condition = Path(dataset_dir), condition
        self.geometry = Geometry(int(image_size), axis, spacing, interpolation, fit)
        self.intensity, self.hu_offset = _intensity(window, percentiles), hu_offset
        self.label_set = None if condition == "image" else LabelSet(labels, label_map, coarse > 0)
        self.store = SliceCache(store_dir, self.geometry, workers)
        self.folders = {"condition_dir": str(condition_dir), "image_dir": image_dir}
        self._find = partial(_records, condition, condition_dir, image_dir, layout, patient_pattern)
        self.patient_pattern = patient_pattern
        self.splits = self.split_by(self._find(dataset_dir), fractions, split_seed, trained=trained)
        self.perturb, self.min_pixels = make_perturbation(perturb), min_pixels
        kind = partial(PerturbedSliceDataset, perturb=self.perturb) if self.perturb else SliceDataset
        self._load = partial(kind, min_pixels=min_pixels, every=every, seed=seed)
        chosen = {name: part for name, part in self.splits.items() if parts is None or name in parts}
        pairs = iter(self._converted([sample for part in chosen.values() for sample in part], self.label_set))
        self.datasets = {}
        for name, samples in chosen.items():
            training = name == "train"
            self.datasets[name] = self._load(
                [next(pairs) for _ in samples],
                self.label_set,
                coarse=coarse if training else 0.0,
            )
            if training:
                self.datasets[name].augment = augmentation(augment, len(self.datasets[name]))
        logger.info(self.summary())

    def whole(self, folder: str | os.PathLike[str], label_map: LabelMap | None = None) -> SliceDataset:
        """All slices of another folder, prepared like this set's: patients kept apart from all training.

        Args:
            folder: in one of the layouts.
            label_map: of its labels, where it differs from this set's.
        Raises:
            UserError: a bad folder or file, or one of its patients is in the training split.
        """
        samples = self._find(folder)
        self.refuse_training_patients(samples, folder)
        labels = self.label_set if not (label_map and self.label_set) else self.label_set.with_map(label_map)
        return self._load(self._converted(samples, labels), labels)

    def summary(self) -> str:
        """One line: slices and patients of each split, the classes, and what was dropped."""
        dropped = sum(part.dropped for part in self.datasets.values())
        classes = f"; classes {', '.join(self.label_set.classes)}" if self.label_set else ""
        filtered = f"; left out {dropped} slices by min_pixels and every" if dropped else ""
        return f"{self.dataset_dir}: {self.counts()}{classes}{filtered}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: classes, intensities, geometry, patients."""
        is_hu = self.intensity.kind == "window"
        limits = [self.intensity.lower, self.intensity.upper]
        return {
            "condition": self.condition,
            **(self.folders if self.condition == "image" else {}),
            "classes": list(self.label_set.classes) if self.label_set else [],
            "label_set": self.label_set.state() if self.label_set else None,
            "intensity": {"kind": self.intensity.kind, "lower": limits[0], "upper": limits[1]},
            "is_hu": is_hu,
            "nominal_hu": is_hu and any(part.nominal_hu for part in self.datasets.values()),
            **({"window_hu": limits} if is_hu else {}),
            "value_range": [-1.0, 1.0],
            "image_size": self.geometry.size,
            "axis": self.geometry.axis,
            "spacing": self.geometry.spacing,
            "interpolation": self.geometry.interpolation,
            "fit": self.geometry.fit,
            "min_pixels": self.min_pixels,
            **({"perturb": asdict(self.perturb)} if self.perturb else {}),
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }

    def _converted(self, samples: Sequence[Sample], label_set: LabelSet | None) -> list[CachedPair]:
        """All files of the samples through the store, and each image with its label."""
        kind = "image" if label_set is None else "label"
        images = [Request(s.image, "image", self.intensity, s.orientation, self.hu_offset) for s in samples]
        labels = [
            Request(s.mask, kind, self.intensity if kind == "image" else None, s.orientation, self.hu_offset)
            for s in samples
            if s.mask is not None
        ]
        stored = self.store.convert([*images, *labels])
        joined = zip(samples, stored[: len(samples)], stored[len(samples) :], strict=True)
        return [cached_pair(sample, image, label, label_set) for sample, image, label in joined]


def _intensity(window: str | Window | Sequence[float], percentiles: Sequence[float] | None) -> Intensity:
    if percentiles is None:
        limits = window_by_name(window)
        return Intensity("window", float(limits.lower), float(limits.upper))
    if len(percentiles) != 2:
        raise UserError(f"percentiles {list(percentiles)}: give two numbers, such as [1, 99]")
    return Intensity("percentile", float(percentiles[0]), float(percentiles[1]))


def _records(
    condition: str,
    condition_dir: str | os.PathLike[str] | None,
    image_dir: str,
    layout: str,
    patient_pattern: str | None,
    folder: str | os.PathLike[str],
) -> list[Sample]:
    """The folder's files; a second image as condition takes the label's place."""
    if condition not in CONDITIONS:
        raise UserError(f"condition {condition!r} is unknown; choose {' or '.join(CONDITIONS)}")
    if condition == "label":
        return find_volumes(folder, layout, patient_pattern)
    if condition_dir is None:
        raise UserError("condition image needs condition_dir: a folder beside images/ with equal file names")
    records = [
        Sample(image, second, patient_of(image, patient_pattern))
        for image, second in paired_files(Path(folder), Path(folder) / condition_dir, image_dir)
    ]
    return keep_scans_together(records, Path(folder), patient_pattern)


class NoduleData(SplitData[NoduleSliceDataset]):
    """A data set of scans with nodules, split by patient.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, each
    scan counting once.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.nodules.find_nodule_scans`.
        image_size: side of the square patches in pixels.
        window: HU window: a preset's name or [lower, upper].
        normal_share, foreground: see `common.data.nodules.Balance`.
        augment: of the training split, see `common.data.transforms.augmentation`.
        seed: the run's seed (patches, augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split and of the choice of slices without nodules.
        layout, unannotated, patient_pattern: see `common.data.nodules.find_nodule_scans`.
        hu_offset: what to add to volumes that are no HU, see `common.data.intensity.offset_to_hu`.
        parts: which splits to load as slices; None for all; whole scans need none, see `scans`.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.
        gray: of whole scans, see `common.data.nodules.read_nodule_scan`.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        image_size: int = 64,
        window: str | Window | Sequence[float] = "lung",
        normal_share: float = 0.3,
        foreground: float = 0.7,
        augment: Augmentation | Mapping[str, float] | str | None = None,
        seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = "auto",
        unannotated: str = "refuse",
        parts: Sequence[str] | None = None,
        hu_offset: float | None = None,
        patient_pattern: str | None = None,
        trained: Mapping[str, Any] | None = None,
        gray: str = BY_WINDOW,
    ) -> None:
        if gray not in GRAYS:
            raise UserError(f"gray {gray!r} is unknown; choose {' or '.join(GRAYS)}")
        self.dataset_dir, self.image_size, self.gray = Path(dataset_dir), int(image_size), gray
        self.window = window_by_name(window)
        self.hu_offset, self.patient_pattern = hu_offset, patient_pattern
        self._find = partial(
            find_nodule_scans,
            layout=layout,
            unannotated=unannotated,
            hu_offset=hu_offset,
            patient_pattern=patient_pattern,
        )
        self.splits = self.split_by(list(self._find(dataset_dir)), fractions, split_seed, trained=trained)
        balance = Balance(normal_share, foreground)
        self.datasets = {
            name: NoduleSliceDataset(
                self.records(name),
                self.image_size,
                self.window,
                balance,
                seed=seed,
            )
            for name in self.splits
            if parts is None or name in parts
        }
        if "train" in self.datasets:
            self.train.augment = augmentation(augment, len(self.train))
        logger.info(self.summary())

    def records(self, split: str) -> list[NoduleSample]:
        """The scans of a split."""
        return [cast(NoduleSample, sample) for sample in self.splits[split]]

    def scans(self, split: str, most: int | None = None) -> Iterator[NoduleScan]:
        """The whole scans of a split, read one after the other; the first ``most`` or all."""
        return self.read(self.records(split)[:most])

    def read(self, records: Sequence[NoduleSample]) -> Iterator[NoduleScan]:
        """Scans with this set's window, read one after the other."""
        return (read_nodule_scan(record, self.window, self.gray) for record in records)

    def others(self, folder: str | os.PathLike[str]) -> list[NoduleSample]:
        """All scans of another folder, of patients kept apart from this set's training.

        Raises:
            UserError: a bad folder, or one of its patients is in the training split.
        """
        records = self._find(folder)
        self.refuse_training_patients(records, folder)
        return records

    def summary(self) -> str:
        """One line: scans and patients of each split, and the slices loaded."""
        scans = ", ".join(
            f"{name} {len(part)} scans of {len({sample.patient for sample in part})} patients"
            for name, part in self.splits.items()
        )
        loaded = "; ".join(
            f"{name} slices: {sum(s.mask.any() for s in part.slices)} with nodules, {len(part)} in all"
            for name, part in self.datasets.items()
        )
        return f"{self.dataset_dir}: {scans}{'; ' + loaded if loaded else ''}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: window, value range, sizes, patients."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "nominal_hu": any(part.nominal_hu for part in self.datasets.values()),
            "value_range": [-1.0, 1.0],
            "image_size": self.image_size,
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }

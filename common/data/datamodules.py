"""Data modules, which configs call: a folder becomes train, validation and test datasets, and loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from common.data.datasets import ImageDataset, PairDataset, SliceDataset, warn_of_gray_values
from common.data.image_layouts import AUTO, find_images, spaced_slices
from common.data.intensity import Standardiser, Window, window_by_name
from common.data.label_perturbation import Perturbation, PerturbedSliceDataset, make_perturbation
from common.data.labels import LabelMap, LabelSet
from common.data.layouts import find_samples, find_volumes, paired_files, warn_of_left_out
from common.data.nodule_slices import Balance, NoduleSliceDataset
from common.data.nodules import (
    BY_WINDOW,
    GRAYS,
    NoduleSample,
    NoduleScan,
    find_nodule_scans,
    read_nodule_scan,
)
from common.data.patients import keep_scans_together, patient_of
from common.data.replay import Transform, flatten_transforms
from common.data.samples import Sample, with_values
from common.data.splits import SplitData
from common.data.transforms import (
    FitSquared,
    LoadCachedSliced,
    StandardizeIntensityd,
    WindowHUd,
    choose_augmentation,
    find_transform,
)
from common.errors import UserError

logger = logging.getLogger(__name__)
D = TypeVar("D", PairDataset, ImageDataset)


class InMemoryData(SplitData[D]):
    """Base of data sets whose slices go through a config's ``preprocessing`` once and stay in memory.

    Subclasses differ in how they find samples and in their class of dataset (``_load``).

    Attributes:
        preprocessing: the transforms, flattened.
    """

    dataset_dir: Path
    preprocessing: list[Transform]
    _load: Callable[..., D]

    def _load_parts(
        self,
        parts: Sequence[str] | None,
        augmentation: Transform | None,
        augment: str | None,
        **training: Any,
    ) -> None:
        """Loads the wanted splits, train first where `StandardizeIntensityd` learns from it."""
        standardize = find_transform(self.preprocessing, StandardizeIntensityd)
        learns = standardize is not None and standardize.learns
        names = [n for n in self.splits if parts is None or n in parts or (learns and n == "train")]
        chosen = choose_augmentation(augment, augmentation, len(self.splits["train"]))
        self.datasets = {}
        for name in sorted(names, key=lambda name: name != "train"):
            more = {"augmentation": chosen, "training": True, **training} if name == "train" else {}
            self.datasets[name] = self._load(self.splits[name], **more)
        warn_of_gray_values(next(iter(self.datasets.values())), self.dataset_dir)

    @property
    def standardiser(self) -> Standardiser:
        """What maps several windows to one standard; with the method ``none`` where nothing does."""
        transform = find_transform(self.preprocessing, StandardizeIntensityd)
        return Standardiser("none", Window(-1000, 400)) if transform is None else transform.standardiser

    def slice_facts(self) -> dict[str, Any]:
        """What the transforms say of themselves, for a model's JSON."""
        window = find_transform(self.preprocessing, WindowHUd)
        square = find_transform(self.preprocessing, FitSquared)
        return {
            **({} if window is None else {"window_hu": [window.window.lower, window.window.upper]}),
            "nominal_hu": any(part.nominal_hu for part in self.datasets.values()),
            "value_range": [-1.0, 1.0],
            "image_size": int(next(iter(self.datasets.values())).images.shape[-1]),
            **({} if square is None else {"fit": square.fit}),
            "standardiser": self.standardiser.state(),
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }


class PairData(InMemoryData[PairDataset]):
    """A data set of images with lesion masks, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, which
    is not the run's seed, so that evaluating finds the same test patients whatever ``seed`` was.

    Args:
        dataset_dir: folder in one of the known layouts.
        preprocessing: MONAI dictionary transforms from file to network input, such as
            `common.data.transforms.slice_preprocessing`.
        augmentation: random transforms of the training split.
        augment: whether they are used, see `common.data.transforms.choose_augmentation`.
        seed: the run's seed (augmentation).
        empty_masks: ``drop`` or ``keep`` slices without lesion.
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout: see `common.data.layouts.find_samples`.
        patient_pattern: see `common.data.layouts.find_samples`.
        hu_offset, source_range, mask_threshold, ignore_value: what the values in the files mean, see
            `common.data.samples.with_values`.
        parts: which splits to load; None for all.
        trained: the JSON of the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        preprocessing: Transform,
        augmentation: Transform | None = None,
        augment: str | None = "light",
        seed: int = 0,
        empty_masks: str = "drop",
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = "auto",
        patient_pattern: str | None = None,
        mask_threshold: float | None = None,
        parts: Sequence[str] | None = None,
        hu_offset: float | None = None,
        trained: Mapping[str, Any] | None = None,
        source_range: Sequence[float] | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        self.dataset_dir, self.preprocessing = Path(dataset_dir), flatten_transforms(preprocessing)
        self.empty_masks, self.patient_pattern = empty_masks, patient_pattern
        self._layout = layout, patient_pattern
        self._values = hu_offset, source_range, mask_threshold, ignore_value
        self.splits = self.split_by(self._find(dataset_dir), fractions, split_seed, ("doctor",), trained)
        self._load = partial(
            PairDataset, preprocessing=self.preprocessing, seed=seed, empty_masks=empty_masks
        )
        self._load_parts(parts, augmentation, augment)
        logger.info(self.summary())

    def _find(self, folder: str | os.PathLike[str]) -> list[Sample]:
        return with_values(find_samples(folder, *self._layout), *self._values)

    def from_folder(self, folder: str | os.PathLike[str]) -> PairDataset:
        """All slices of another folder, with the same preprocessing.

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
        """What travels with a trained model, as plain JSON: window, value range, sizes, patients."""
        return {**self.slice_facts(), "empty_masks": self.empty_masks}


class ImageData(InMemoryData[ImageDataset]):
    """A data set of images, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the whole set is split by ``split_seed``,
    whatever classes are chosen: a patient's part is the same for all models of a folder.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.image_layouts.find_images`.
        preprocessing: MONAI dictionary transforms from file to network input, such as
            `common.data.transforms.slice_preprocessing`.
        augmentation: random transforms of the training split.
        augment: whether they are used, see `common.data.transforms.choose_augmentation`.
        classes: which classes to take, see `common.data.image_layouts.ImageSet.chosen`.
        flips: double the training split by left-right flips, as Gubbi does: half of what a generator learns
            then has its heart at the right.
        seed: the run's seed (augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout, patient_pattern: see `common.data.image_layouts.find_images`.
        hu_offset, source_range: what the values in the files mean, see `common.data.samples.with_values`.
        parts: which splits to load; None for all.
        trained: the JSON of the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.
        slice_mm: of volumes only slices with lung, this far apart, see
            `common.data.image_layouts.spaced_slices`; None for all.

    Attributes:
        class_names: the chosen classes; ``class`` in the batches is the index among them.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        preprocessing: Transform,
        augmentation: Transform | None = None,
        augment: str | None = "light",
        classes: str | Sequence[str] = AUTO,
        flips: bool = False,
        seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = AUTO,
        patient_pattern: str | None = None,
        parts: Sequence[str] | None = None,
        hu_offset: float | None = None,
        trained: Mapping[str, Any] | None = None,
        slice_mm: float | None = None,
        source_range: Sequence[float] | None = None,
    ) -> None:
        self.dataset_dir, self.preprocessing = Path(dataset_dir), flatten_transforms(preprocessing)
        self.flips, self.slice_mm = flips, slice_mm
        self.patient_pattern, self.layout = patient_pattern, layout
        self._find = partial(
            find_images,
            layout=layout,
            patient_pattern=patient_pattern,
            hu_offset=hu_offset,
            source_range=source_range,
        )
        arguments = ((trained or {}).get("network") or {}).get("arguments")
        self._any_class = arguments is not None and not arguments.get("classes")  # the model draws no classes
        images = self._find(dataset_dir).called(classes)
        images = images._replace(samples=spaced_slices(images.samples, slice_mm))
        chosen = images.chosen(classes, dataset_dir, self._any_class)
        self.class_names = chosen.classes
        named = chosen.samples if trained and trained.get("splits") else images.samples
        splits = self.split_by(named, fractions, split_seed, trained=trained)
        self.splits = {
            name: [sample for sample in part if sample.category in chosen.classes]
            for name, part in splits.items()
        }
        self._load = partial(
            ImageDataset, class_names=self.class_names, preprocessing=self.preprocessing, seed=seed
        )
        self._load_parts(parts, augmentation, augment, flips=flips)
        logger.info(self.summary())

    def from_folder(self, folder: str | os.PathLike[str]) -> ImageDataset:
        """All images of this set's classes in another folder, with the same preprocessing.

        Raises:
            UserError: a bad folder or file, none of the classes, or a patient of the training split.
        """
        images = self._find(folder).called(self.class_names)
        names = [name for name in self.class_names if name in images.classes] or self.class_names
        chosen = images.chosen(names, folder, self._any_class)
        if not set(chosen.classes) <= set(self.class_names):
            one = [replace(sample, category=self.class_names[0]) for sample in chosen.samples]
            chosen = chosen._replace(samples=one)
        samples = spaced_slices(chosen.samples, self.slice_mm)
        self.refuse_training_patients(samples, folder)
        return self._load(samples)

    def summary(self) -> str:
        """One line: images and patients of each split, and how many of each class."""
        flipped = " (train with its flips)" if self.flips and "train" in self.datasets else ""
        if len(self.class_names) < 2 or "train" not in self.datasets:
            classes = f"class {', '.join(self.class_names)}"
        else:
            counts = self.train.counts()
            classes = "train has " + ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{self.dataset_dir}: {self.counts()}{flipped}; {classes}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: window, value range, classes, sizes, patients."""
        return {
            **self.slice_facts(),
            "classes": list(self.class_names),
            "layout": self.layout,
            "flips": self.flips,
            "slice_mm": self.slice_mm,
        }


class StructureData(SplitData[SliceDataset]):
    """A data set of images with label maps (or second images), split by patient and read through a cache.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``. The
    split depends on the files alone (each volume counts once): it is the same for all labels and filters.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.layouts.find_volumes`.
        preprocessing: MONAI dictionary transforms, the first of them
            `common.data.transforms.LoadCachedSliced`.
        augmentation: random transforms of the training split.
        augment: whether they are used, see `common.data.transforms.choose_augmentation`.
        coarse: probability that a training sample has chambers and myocardium merged into ``whole_heart``,
            for labels that do not tell them apart; the label set must have that class.
        min_pixels: keep slices with at least this many pixels of the classes; 0 for all.
        every: keep every n-th slice of a volume.
        perturb: the labels' perturbation; None or a dict of `Perturbation` settings or the object. Items then
            have the true label as ``annotation``, see `common.data.label_perturbation`.
        seed: the run's seed (augmentation, coarse labels, perturbation).
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout, patient_pattern: see `common.data.layouts.find_volumes`.
        condition_dir: without a label set: a folder beside the images' (``native``), or a path, whose image
            of equal name is ``label``.
        image_dir: the images' folder, without a label set.
        parts: which splits to convert and load; None for all.
        trained: the JSON of the model that is evaluated: its own split is taken, see
            `common.data.splits.split_samples`.

    Attributes:
        label_set: the classes; None where the condition is an image.
    Raises:
        UserError: a bad folder, file or setting.
    """

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str],
        preprocessing: Transform,
        augmentation: Transform | None = None,
        augment: str | None = "light",
        coarse: float = 0.0,
        min_pixels: int = 1,
        every: int = 1,
        perturb: Perturbation | Mapping[str, float] | None = None,
        seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        layout: str = "auto",
        patient_pattern: str | None = None,
        condition_dir: str | os.PathLike[str] | None = None,
        image_dir: str = "images",
        parts: Sequence[str] | None = None,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        first, *others = flatten_transforms(preprocessing)
        if not isinstance(first, LoadCachedSliced):
            raise UserError("preprocessing: the first transform of this data set must be LoadCachedSliced")
        self.dataset_dir, self.loader, self.label_set = Path(dataset_dir), first, first.label_set
        self.patient_pattern = patient_pattern
        self.folders = {"condition_dir": str(condition_dir), "image_dir": image_dir}
        self._find = partial(_find_volumes, self.label_set, condition_dir, image_dir, layout, patient_pattern)
        self.splits = self.split_by(self._find(dataset_dir), fractions, split_seed, trained=trained)
        self.perturb, self.min_pixels = make_perturbation(perturb), min_pixels
        kind = partial(PerturbedSliceDataset, perturb=self.perturb) if self.perturb else SliceDataset
        self._load = partial(kind, min_pixels=min_pixels, every=every, seed=seed, preprocessing=others)
        chosen = {name: part for name, part in self.splits.items() if parts is None or name in parts}
        pairs = iter(self.loader.convert([sample for part in chosen.values() for sample in part]))
        self.datasets = {}
        for name, samples in chosen.items():
            own = [next(pairs) for _ in samples]
            self.datasets[name] = self._load(own, self.label_set, coarse=coarse if name == "train" else 0.0)
        warn_of_gray_values(next(iter(self.datasets.values())), self.dataset_dir)
        if "train" in self.datasets:
            self.train.augment(choose_augmentation(augment, augmentation, len(self.train)))
        logger.info(self.summary())

    def from_folder(self, folder: str | os.PathLike[str], label_map: LabelMap | None = None) -> SliceDataset:
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
        return self._load(self.loader.convert(samples, labels), labels)

    def summary(self) -> str:
        """One line: slices and patients of each split, the classes, and what was dropped."""
        dropped = sum(part.dropped for part in self.datasets.values())
        classes = f"; classes {', '.join(self.label_set.classes)}" if self.label_set else ""
        filtered = f"; left out {dropped} slices by min_pixels and every" if dropped else ""
        return f"{self.dataset_dir}: {self.counts()}{classes}{filtered}"

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON: classes, intensities, geometry, patients."""
        geometry, intensity = self.loader.geometry, self.loader.intensity
        is_hu, limits = intensity.kind == "window", [intensity.lower, intensity.upper]
        return {
            "condition": "label" if self.label_set else "image",
            **({} if self.label_set else self.folders),
            "classes": list(self.label_set.classes) if self.label_set else [],
            "label_set": self.label_set.state() if self.label_set else None,
            "intensity": {"kind": intensity.kind, "lower": limits[0], "upper": limits[1]},
            "is_hu": is_hu,
            "nominal_hu": is_hu and any(part.nominal_hu for part in self.datasets.values()),
            **({"window_hu": limits} if is_hu else {}),
            "value_range": [-1.0, 1.0],
            "image_size": geometry.size,
            "axis": geometry.axis,
            "spacing": geometry.spacing,
            "interpolation": geometry.interpolation,
            "fit": geometry.fit,
            "min_pixels": self.min_pixels,
            **({"perturb": asdict(self.perturb)} if self.perturb else {}),
            **self.split_facts(),
            "slices": {name: len(part) for name, part in self.datasets.items()},
        }


def _find_volumes(
    label_set: LabelSet | None,
    condition_dir: str | os.PathLike[str] | None,
    image_dir: str,
    layout: str,
    patient_pattern: str | None,
    folder: str | os.PathLike[str],
) -> list[Sample]:
    """The folder's images with their labels, or with a second image in the label's place."""
    if label_set is not None:
        return find_volumes(folder, layout, patient_pattern)
    if condition_dir is None:
        raise UserError(
            "without a label set the condition is an image: set condition_dir, a folder beside images/ with "
            "equal file names"
        )
    records = [
        Sample(image, second, patient_of(image, patient_pattern))
        for image, second in paired_files(Path(folder), Path(folder) / condition_dir, image_dir)
    ]
    warn_of_left_out(Path(folder), [path for record in records for path in (record.image, record.mask)])
    return keep_scans_together(records, Path(folder), patient_pattern)


class NoduleData(SplitData[NoduleSliceDataset]):
    """A data set of scans with nodules, split by patient.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, each
    scan counting once.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.nodules.find_nodule_scans`.
        image_size: side of the square patches in pixels.
        window: HU window: a preset's name or [lower, upper].
        normal_share, foreground: see `common.data.nodule_slices.Balance`.
        preprocessing: MONAI dictionary transforms of the patches, which are in HU; None for the window.
        augmentation: random transforms of the training split's patches.
        augment: whether they are used, see `common.data.transforms.choose_augmentation`.
        seed: the run's seed (patches, augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split and of the choice of slices without nodules.
        layout, unannotated, patient_pattern: see `common.data.nodules.find_nodule_scans`.
        hu_offset, source_range, mask_threshold, ignore_value: what the values in the files mean, see
            `common.data.samples.with_values`.
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
        preprocessing: Transform | None = None,
        augmentation: Transform | None = None,
        augment: str | None = "light",
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
        source_range: Sequence[float] | None = None,
        mask_threshold: float | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        if gray not in GRAYS:
            raise UserError(f"gray {gray!r} is unknown; choose {' or '.join(GRAYS)}")
        self.dataset_dir, self.image_size, self.gray = Path(dataset_dir), int(image_size), gray
        self.window = window_by_name(window)
        self.hu_offset, self.source_range, self.patient_pattern = hu_offset, source_range, patient_pattern
        self._find = partial(
            find_nodule_scans,
            layout=layout,
            unannotated=unannotated,
            hu_offset=hu_offset,
            patient_pattern=patient_pattern,
            source_range=source_range,
            mask_threshold=mask_threshold,
            ignore_value=ignore_value,
        )
        self.splits = self.split_by(list(self._find(dataset_dir)), fractions, split_seed, trained=trained)
        load = partial(
            NoduleSliceDataset,
            image_size=self.image_size,
            window=self.window,
            balance=Balance(normal_share, foreground),
            preprocessing=preprocessing,
            seed=seed,
        )
        loaded = [name for name in self.splits if parts is None or name in parts]
        self.datasets = {name: load(self.records(name)) for name in loaded}
        if self.datasets:
            warn_of_gray_values(next(iter(self.datasets.values())), self.dataset_dir)
        if "train" in self.datasets:
            self.train.augment(choose_augmentation(augment, augmentation, len(self.train)))
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

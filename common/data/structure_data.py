"""Volumes and pictures with label maps of the heart, as configs load them: by way of the slice store."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from common.data.augment import Augmentation, augmentation
from common.data.folders import paired_files
from common.data.intensity import Window, window_by_name
from common.data.layouts import find_volumes
from common.data.patients import patient_of
from common.data.persons import keep_scans_together
from common.data.perturb import Perturbation
from common.data.perturbed_slices import PerturbedSlices, perturbation
from common.data.samples import Sample
from common.data.slices import SliceDataset
from common.data.split_data import SplitData
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.data.stored_pairs import StoredPair, stored_pair
from common.data.structures import LabelMap, Labels, LabelSet
from common.errors import UserError

logger = logging.getLogger(__name__)
CONDITIONS = ("label", "image")


class StructureData(SplitData[SliceDataset]):
    """A data set of images with label maps (or second images), split by patient and converted into slices.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``. The
    split depends on the files alone (each volume counts once): it is the same for all labels and filters.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.layouts.find_volumes`.
        image_size: side of the square slices in pixels.
        store_dir: where converted slices are kept.
        labels, label_map: the classes, see `common.data.structures.LabelSet`.
        coarse: probability that a training visit has chambers and myocardium merged into ``whole_heart``,
            which then is a further class: for labels that do not tell them apart.
        window: HU window: a preset's name or [lower, upper].
        percentiles: (lower, upper) per cent of each volume's own voxels become -1 and 1 instead, for MR.
        axis: ``axial``, ``coronal`` or ``sagittal``: the planes that are cut.
        spacing: pixel size in mm, cropped or padded to the square; None takes ``fit``.
        interpolation: of images: ``area`` or ``linear``; labels always take the nearest pixel.
        min_pixels: keep slices with at least so many pixels of the classes at ``image_size``; 0 for all.
        every: keep every n-th slice of a volume.
        augment: of the training split, see `common.data.augment.augmentation`.
        perturb: the labels' perturbation; None or a dict of `Perturbation` settings or the object. Items then
            have the true label as ``annotation``, see `common.data.perturbed_slices`.
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
            `common.data.split_data.split_samples`.

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
        self.store = SliceStore(store_dir, self.geometry, workers)
        self.folders = {"condition_dir": str(condition_dir), "image_dir": image_dir}
        self._find = partial(_records, condition, condition_dir, image_dir, layout, patient_pattern)
        self.patient_pattern = patient_pattern
        self.splits = self.split_by(self._find(dataset_dir), fractions, split_seed, trained=trained)
        self.perturb, self.min_pixels = perturbation(perturb), min_pixels
        kind = partial(PerturbedSlices, perturb=self.perturb) if self.perturb else SliceDataset
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

    def _converted(self, samples: Sequence[Sample], label_set: LabelSet | None) -> list[StoredPair]:
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
        return [stored_pair(sample, image, label, label_set) for sample, image, label in joined]


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

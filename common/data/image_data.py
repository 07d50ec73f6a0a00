"""Images without masks, as configs load them: for unconditional and class-conditional nets."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.data.augment import Augmentation, augmentation
from common.data.image_layouts import AUTO, find_images
from common.data.images import ImageDataset
from common.data.intensity import Window, window_by_name
from common.data.spaced_slices import spaced_slices
from common.data.split_data import SplitData
from common.data.standardise import Standardiser

logger = logging.getLogger(__name__)


class ImageData(SplitData[ImageDataset]):
    """A data set of images, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the whole set is split by ``split_seed``,
    whatever classes are chosen: a patient's part is the same for all models of a folder.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.image_layouts.find_images`.
        image_size: side of the square slices in pixels.
        classes: which classes to take, see `common.data.image_layouts.ImageSet.chosen`.
        fit: how slices become square, see `common.data.resizing.fit_square`.
        flips: double the training split by left-right flips, as paper C does: half of what a generator
            learns then has its heart at the right.
        window: HU window: a preset's name or [lower, upper].
        standardise: ``none``, ``landmarks`` or ``histogram``, see `common.data.standardise`.
        augment: of the training split, see `common.data.augment.augmentation`.
        seed: the run's seed (augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split.
        layout, patient_pattern: see `common.data.image_layouts.find_images`.
        source_range: black and white of files that are not HU.
        hu_offset: what to add to volumes that are no HU, see `common.data.intensity.offset_to_hu`.
        parts: which splits to load; None for all.
        standardiser_state: of a trained model's metadata; then nothing is fitted.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.split_data.split_samples`.
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

"""The one entry that configs call: a folder becomes train, validation and test pairs, and loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, default_collate

from common.data.augment import Augmentation, augmentation
from common.data.intensity import Window, window_by_name
from common.data.layouts import find_samples
from common.data.nodule_slices import NoduleSlices
from common.data.pairs import PairDataset
from common.data.samples import Sample, with_hu_offset
from common.data.sampling import BatchStream
from common.data.slices import SliceDataset
from common.data.split_data import SplitData
from common.data.standardise import Standardiser

logger = logging.getLogger(__name__)


class PairData(SplitData[PairDataset]):
    """A data set, split by patient and loaded.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, which
    is apart from the run's seed so that evaluating finds the same test patients whatever ``seed`` was.

    Args:
        dataset_dir: folder in one of the known layouts.
        image_size: side of the square slices in pixels.
        window: HU window: a preset's name or [lower, upper].
        standardise: ``none``, ``landmarks`` or ``histogram``, see `common.data.standardise`.
        augment: of the training split, see `common.data.augment.augmentation`.
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
            `common.data.split_data.split_samples`.
        fit: how slices become square, see `common.data.resizing.fit_square`.
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
    dataset: Dataset[dict[str, Any]], stream: BatchStream, num_workers: int = 0, pin_memory: bool = False
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


def example_batch(dataset: PairDataset | SliceDataset | NoduleSlices, count: int) -> dict[str, Any]:
    """A batch of ``count`` pairs spread evenly over the dataset (all of a smaller one), always the same."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return dict(default_collate([dataset[int(place)] for place in places]))

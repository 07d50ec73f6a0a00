"""Scans with nodules, as configs load them: split by patient: slices for training, whole scans beside."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from common.data.augment import Augmentation, augmentation
from common.data.intensity import Window, window_by_name
from common.data.nodule_layouts import NoduleSample, find_nodule_scans
from common.data.nodule_scan import BY_WINDOW, GRAYS, NoduleScan, read_nodule_scan
from common.data.nodule_slices import Balance, NoduleSlices
from common.data.split_data import SplitData
from common.errors import UserError

logger = logging.getLogger(__name__)


class NoduleData(SplitData[NoduleSlices]):
    """A data set of scans with nodules, split by patient.

    ``splits.json`` in the folder is used where there is one; else the set is split by ``split_seed``, each
    scan counting once.

    Args:
        dataset_dir: folder in one of the layouts of `common.data.nodule_layouts.find_nodule_scans`.
        image_size: side of the square patches in pixels.
        window: HU window: a preset's name or [lower, upper].
        normal_share, foreground: see `common.data.nodule_slices.Balance`.
        augment: of the training split, see `common.data.augment.augmentation`.
        seed: the run's seed (patches, augmentation).
        fractions: shares of train, val, test.
        split_seed: of the split and of the choice of slices without nodules.
        layout, unannotated, patient_pattern: see `common.data.nodule_layouts.find_nodule_scans`.
        hu_offset: what to add to volumes that are no HU, see `common.data.intensity.offset_to_hu`.
        parts: which splits to load as slices; None for all; whole scans need none, see `scans`.
        trained: what stands beside the model that is evaluated: its own split is taken, see
            `common.data.split_data.split_samples`.
        gray: of whole scans, see `common.data.nodule_scan.read_nodule_scan`.
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
        balance = Balance(normal_share, foreground).checked()
        self.datasets = {
            name: NoduleSlices(
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

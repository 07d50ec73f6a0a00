"""Stage 2: scans become banks of nodules and of slices, and the probability map of nodule presence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundles.lung_two_stage.extraction.choosing import SliceRules
from bundles.lung_two_stage.extraction.coordinates import LungPoint, lung_point
from bundles.lung_two_stage.extraction.crops import Crop, CropRules, bank_of, crops_of
from bundles.lung_two_stage.extraction.elsewhere import find_normals, read_normals
from bundles.lung_two_stage.extraction.fitting import FittedSlice, slice_bank
from bundles.lung_two_stage.extraction.looking import Seen, look
from bundles.lung_two_stage.extraction.masks import ANNOTATED, MaskOf, annotated, category_names
from bundles.lung_two_stage.extraction.patients import Parts, parts_of
from bundles.lung_two_stage.extraction.presence import PresenceMap
from common.data.new_folder import remade_folder
from common.data.nodule_data import NoduleData
from common.data.nodule_layouts import NoduleSample
from common.data.samples import Sample
from common.errors import UserError
from common.files import write_json
from common.handlers.progress import pace

logger = logging.getLogger(__name__)
REPORT = "extraction.json"
"""Written last: what was extracted, of whom, and with which settings."""
NODULES, NORMALS, PRESENCE = "nodules", "normals", "presence.npz"
"""Of the patients to generate from: crops, slices without nodules, where the nodules lie."""
OTHERS = "others"
"""Slices with nodules and without, of the patients that are kept for the enhancer."""
TESTS, TEST_NODULES = "tests", "test_nodules"
"""Slices and crops of the test split, with the annotated nodules."""


class Extraction:
    """Extracts what the later stages work on.

    Args:
        data: the scans, split by patient.
        mask_of: gives a scan's nodules, see `masks.mask_source`; tests always have the annotated ones.
        masks: its name.
        crops, slices: see `CropRules` and `SliceRules`, objects or mappings of their settings.
        presence: ``cells``, ``bandwidth`` and ``prior`` of `PresenceMap.from_points`.
        share: of the training patients that are kept for the enhancer.
        seed: of that choice.
        normals_share: the same of the patients in ``normals_dir``; None for ``share``. Crops show no whole
            slices: where the data are crops, the enhancer learns from ``normals_dir`` alone.
        normals_dir: further slices without nodules, see `elsewhere.find_normals`; with the data's offset.
        fractions, split_seed: how ``normals_dir`` is split.
    Raises:
        UserError: a setting is out of range, or too few patients.
    """

    def __init__(
        self,
        data: NoduleData,
        mask_of: MaskOf = annotated,
        masks: str = ANNOTATED,
        crops: CropRules | Mapping[str, Any] | None = None,
        slices: SliceRules | Mapping[str, Any] | None = None,
        presence: Mapping[str, Any] | None = None,
        share: float = 0.3,
        seed: int = 0,
        normals_dir: str | os.PathLike[str] | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        normals_share: float | None = None,
    ) -> None:
        self.data, self.mask_of, self.masks = data, mask_of, masks
        self.crops = crops if isinstance(crops, CropRules) else CropRules(**(crops or {}))
        self.slices = slices if isinstance(slices, SliceRules) else SliceRules(**(slices or {}))
        self.presence, self.share, self.seed = dict(presence or {}), share, seed
        self.normals_share = share if normals_share is None else normals_share
        self.parts = parts_of(data.records("train"), data.records("test"), share, seed)
        self.normals_dir = None if normals_dir is None else Path(normals_dir)
        self.elsewhere: Parts[Sample] = Parts([], [], [])
        if self.normals_dir is not None:
            self.elsewhere = find_normals(
                self.normals_dir,
                fractions,
                split_seed,
                self.normals_share,
                seed,
                data.hu_offset,
                data.patient_pattern,
            )
            self._check_elsewhere(self.normals_dir)
        self.skipped: Counter[str] = Counter()
        self.categories: list[str] = []

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, those of ``normals_dir`` included; no patient is in two."""
        own, more = self.parts.patients(), self.elsewhere.patients()
        return {name: sorted({*own[name], *more[name]}) for name in own}

    def run(self, output_dir: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes the banks (see `NODULES` and its neighbours), the presence map and a report.

        The folder is whole or as it was before; an earlier extraction in it is replaced.

        Returns:
            The report, as ``extraction.json`` holds it.
        Raises:
            UserError: a bad scan, no lung found in one, or no nodule at all to generate from.
        """
        self.skipped.clear()
        with remade_folder(output_dir, REPORT) as folder:
            counts = self._generation(folder) | self._enhancer(folder) | self._tests(folder)
            report = self._report(counts)
            write_json(folder / REPORT, report)
        logger.info("%s: %s", output_dir, "; ".join(f"{count} {name}" for name, count in counts.items()))
        for reason, count in self.skipped.items():
            logger.warning("%s: left out %d %s", output_dir, count, reason)
        return report

    def _generation(self, folder: Path) -> dict[str, int]:
        crops: list[Crop] = []
        normals: list[FittedSlice] = []
        points: list[LungPoint] = []
        for record, seen in self._seen(self.parts.generation, self.mask_of, "extracting nodules"):
            found = list(self._crops(record, seen, category_names(seen.scan.categories, self.masks)))
            crops += found
            points += _places(found, seen)
            normals += seen.normals(self.slices)
        normals += [one for seen in self._elsewhere("generation") for one in seen.normals(self.slices)]
        self._check_found(crops, normals)
        bank_of(crops, self.crops).save(folder / NODULES)
        slice_bank(normals, self.slices.image_size).save(folder / NORMALS)
        PresenceMap.from_points(points, **self.presence).save(folder / PRESENCE)
        return {NODULES: len(crops), NORMALS: len(normals), "places in the presence map": len(points)}

    def _enhancer(self, folder: Path) -> dict[str, int]:
        others: list[FittedSlice] = []
        for _, seen in self._seen(self.parts.enhancer, self.mask_of, "extracting other slices"):
            others += seen.with_nodules(self.slices) + seen.normals(self.slices)
        others += [one for seen in self._elsewhere("enhancer") for one in seen.normals(self.slices)]
        slice_bank(others, self.slices.image_size).save(folder / OTHERS)
        return {OTHERS: len(others)}

    def _tests(self, folder: Path) -> dict[str, int]:
        crops: list[Crop] = []
        tests: list[FittedSlice] = []
        for record, seen in self._seen(self.parts.test, annotated, "extracting tests"):
            crops += self._crops(record, seen, seen.scan.categories)
            tests += seen.with_nodules(self.slices) + seen.normals(self.slices)
        tests += [one for seen in self._elsewhere("test") for one in seen.normals(self.slices)]
        bank_of(crops, self.crops).save(folder / TEST_NODULES)
        slice_bank(tests, self.slices.image_size).save(folder / TESTS)
        return {TESTS: len(tests), TEST_NODULES: len(crops)}

    def _seen(
        self, records: Sequence[NoduleSample], mask_of: MaskOf, title: str
    ) -> Iterator[tuple[NoduleSample, Seen]]:
        """Each scan with its mask and lungs, behind a progress bar."""
        scans = self.data.read(records)
        for record, scan in zip(_bar(records, title), scans, strict=True):
            names = category_names(scan.categories, self.masks)
            self.categories = names if len(names) > len(self.categories) else self.categories
            yield record, look(scan, mask_of(scan), self.slices, self.skipped)

    def _elsewhere(self, part: str) -> Iterator[Seen]:
        """The scans of ``normals_dir`` for a part."""
        samples: list[Sample] = getattr(self.elsewhere, part)
        for scan in _bar(read_normals(samples, self.data.window), f"normals for {part}", len(samples)):
            yield look(scan, scan.mask, self.slices, self.skipped)

    def _crops(self, record: NoduleSample, seen: Seen, categories: Sequence[str]) -> Iterator[Crop]:
        single = record.single and seen.mask is seen.scan.mask
        return crops_of(seen.scan, seen.mask, categories, self.crops, single, seen.lung, self.skipped)

    def _check_found(self, crops: Sequence[Crop], normals: Sequence[FittedSlice]) -> None:
        where, lost = self.data.dataset_dir, ", ".join(f"{n} {reason}" for reason, n in self.skipped.items())
        if not crops:
            raise UserError(
                f"{where}: no nodules to extract from {len(self.parts.generation)} scans "
                f"({lost or f'none {self.masks}'}); bring scans with nodules, or change the crop's settings"
            )
        if not normals:
            logger.warning("%s: no slices without nodules; give some by --normals_dir", where)

    def _check_elsewhere(self, folder: Path) -> None:
        strangers = {name for names in self.elsewhere.patients().values() for name in names}
        shared = strangers & {name for names in self.data.patients().values() for name in names}
        if shared:
            raise UserError(
                f"{folder}: patient {min(shared)} is in {self.data.dataset_dir} too, whose slices without "
                "nodules are taken anyway; remove the patient there, or leave normals_dir out"
            )

    def _report(self, counts: Mapping[str, int]) -> dict[str, Any]:
        settings = {
            "dataset_dir": str(self.data.dataset_dir),
            "normals_dir": None if self.normals_dir is None else str(self.normals_dir),
            "masks": self.masks,
            "share_for_enhancer": self.share,
            "normals_share_for_enhancer": self.normals_share,
            "gray": self.data.gray,
            "seed": self.seed,
            "window_hu": [self.data.window.lower, self.data.window.upper],
            "presence": self.presence,
            **asdict(self.crops),
            **asdict(self.slices),
        }
        return {
            "counts": dict(counts),
            "left_out": dict(sorted(self.skipped.items())),
            "categories": self.categories,
            "patients": self.patients(),
            "settings": settings,
        }


def _places(crops: Iterable[Crop], seen: Seen) -> list[LungPoint]:
    """Where the crops' nodules lie in the lungs."""
    if seen.lung is None:
        return []
    found = (lung_point(seen.lung[crop.place[0]], *crop.place[1:]) for crop in crops)
    return [point for point in found if point is not None]


def _bar(items: Iterable[Any], title: str, total: int | None = None) -> tqdm:
    return tqdm(items, title, total, unit="scan", dynamic_ncols=True, **pace())

"""Stage 2: scans become banks of nodules and of slices, and the probability map of nodule presence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from bundles.lung_two_stage.extraction.crops import Crop, CropRules, bank_of, crops_of
from bundles.lung_two_stage.extraction.presence_map import LungPoint, PresenceMap, lung_point
from bundles.lung_two_stage.extraction.slices import (
    FittedSlice,
    Parts,
    Seen,
    SliceRules,
    find_healthy_slices,
    look,
    parts_of,
    read_healthy_scans,
    slice_bank,
)
from bundles.lung_two_stage.segmentation.inference import load_method
from common.data.datamodules import NoduleData
from common.data.nodules import NoduleSample, NoduleScan, label_pieces
from common.data.samples import Sample
from common.errors import UserError
from common.files import remade_folder, write_json
from common.handlers.logging import pace

ANNOTATED, SEGMENTED = "annotated", "segmented"
UNKNOWN = "unknown"
"""Category of a segmented nodule that lies on no annotated one."""
MaskOf = Callable[[NoduleScan], NDArray[np.uint8]]


def mask_source(masks: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MaskOf:
    """What gives a scan its nodules' mask, uint8 (Z, H, W) as `NoduleScan.mask`.

    Args:
        masks: `ANNOTATED` or `SEGMENTED`.
        ckpt_path: the segmenter's model, for `SEGMENTED`.
        device: where it runs.
    Raises:
        UserError: neither of the two, no model, or one that draws no masks.
    """
    if masks == ANNOTATED:
        return annotated
    if masks != SEGMENTED:
        raise UserError(f"masks {masks!r} is unknown; choose {ANNOTATED} or {SEGMENTED}")
    method = load_method("segmenter", ckpt_path, device)

    def segmented(scan: NoduleScan) -> NDArray[np.uint8]:
        found = method.masks(scan)
        if found is None:
            raise UserError(f"{ckpt_path}: this model draws no masks; give the segmentation's model")
        return with_categories(found, scan.mask, scan.categories)

    return segmented


def annotated(scan: NoduleScan) -> NDArray[np.uint8]:
    """The scan's own mask."""
    return scan.mask


def category_names(categories: Sequence[str], masks: str) -> list[str]:
    """The names of a mask's values 1, 2, ... from that source."""
    return [*categories, UNKNOWN] if categories and masks == SEGMENTED else list(categories)


def with_categories(
    found: NDArray[np.uint8], known: NDArray[np.uint8], categories: Sequence[str]
) -> NDArray[np.uint8]:
    """A segmented mask {0, 1} with the category of the annotated nodule that each piece covers most of.

    Pieces that cover none have the number after the last category's; without categories all have 1.
    """
    result = np.where(found > 0, len(categories) + 1, 0).astype(np.uint8)
    if not categories:
        return result
    pieces, count = label_pieces(found)
    for number, box in enumerate(find_objects(pieces, count), 1):
        inside = pieces[box] == number
        values = known[box][inside]
        if values.any():
            result[box][inside] = np.bincount(values[values > 0]).argmax()
    return result


logger = logging.getLogger(__name__)
REPORT = "extraction.json"
"""Written last: what was extracted, of whom, and with which settings."""
NODULES, HEALTHY_SLICES, PRESENCE = "nodules", "healthy_slices", "presence.npz"
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
        healthy_share: the same of the patients in ``healthy_slices_dir``; None for ``share``. Crops show no
            whole slices: where the data are crops, the enhancer learns from ``healthy_slices_dir`` alone.
        healthy_slices_dir: further slices without nodules, see
            `bundles.lung_two_stage.extraction.slices.find_healthy_slices`; with the data's offset.
        fractions, split_seed: how ``healthy_slices_dir`` is split.
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
        healthy_slices_dir: str | os.PathLike[str] | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        healthy_share: float | None = None,
    ) -> None:
        self.data, self.mask_of, self.masks = data, mask_of, masks
        self.crops = crops if isinstance(crops, CropRules) else CropRules(**(crops or {}))
        self.slices = slices if isinstance(slices, SliceRules) else SliceRules(**(slices or {}))
        self.presence, self.share, self.seed = dict(presence or {}), share, seed
        self.healthy_share = share if healthy_share is None else healthy_share
        self.parts = parts_of(data.records("train"), data.records("test"), share, seed)
        self.healthy_slices_dir = None if healthy_slices_dir is None else Path(healthy_slices_dir)
        self.elsewhere: Parts[Sample] = Parts([], [], [])
        if self.healthy_slices_dir is not None:
            self.elsewhere = find_healthy_slices(
                self.healthy_slices_dir,
                fractions,
                split_seed,
                self.healthy_share,
                seed,
                data.hu_offset,
                data.patient_pattern,
            )
            self._check_elsewhere(self.healthy_slices_dir)
        self.skipped: Counter[str] = Counter()
        self.categories: list[str] = []

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, those of ``healthy_slices_dir`` included; no patient is in two."""
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
        healthy_slices: list[FittedSlice] = []
        points: list[LungPoint] = []
        for record, seen in self._seen(self.parts.generation, self.mask_of, "extracting nodules"):
            found = list(self._crops(record, seen, category_names(seen.scan.categories, self.masks)))
            crops += found
            points += _places(found, seen)
            healthy_slices += seen.healthy_slices(self.slices)
        healthy_slices += [
            one for seen in self._elsewhere("generation") for one in seen.healthy_slices(self.slices)
        ]
        self._check_found(crops, healthy_slices)
        bank_of(crops, self.crops).save(folder / NODULES)
        slice_bank(healthy_slices, self.slices.image_size).save(folder / HEALTHY_SLICES)
        PresenceMap.from_points(points, **self.presence).save(folder / PRESENCE)
        return {
            NODULES: len(crops),
            HEALTHY_SLICES: len(healthy_slices),
            "places in the presence map": len(points),
        }

    def _enhancer(self, folder: Path) -> dict[str, int]:
        others: list[FittedSlice] = []
        for _, seen in self._seen(self.parts.enhancer, self.mask_of, "extracting other slices"):
            others += seen.with_nodules(self.slices) + seen.healthy_slices(self.slices)
        others += [one for seen in self._elsewhere("enhancer") for one in seen.healthy_slices(self.slices)]
        slice_bank(others, self.slices.image_size).save(folder / OTHERS)
        return {OTHERS: len(others)}

    def _tests(self, folder: Path) -> dict[str, int]:
        crops: list[Crop] = []
        tests: list[FittedSlice] = []
        for record, seen in self._seen(self.parts.test, annotated, "extracting tests"):
            crops += self._crops(record, seen, seen.scan.categories)
            tests += seen.with_nodules(self.slices) + seen.healthy_slices(self.slices)
        tests += [one for seen in self._elsewhere("test") for one in seen.healthy_slices(self.slices)]
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
        """The scans of ``healthy_slices_dir`` for a part."""
        samples: list[Sample] = getattr(self.elsewhere, part)
        for scan in _bar(
            read_healthy_scans(samples, self.data.window), f"healthy_slices for {part}", len(samples)
        ):
            yield look(scan, scan.mask, self.slices, self.skipped)

    def _crops(self, record: NoduleSample, seen: Seen, categories: Sequence[str]) -> Iterator[Crop]:
        single = record.single and seen.mask is seen.scan.mask
        return crops_of(seen.scan, seen.mask, categories, self.crops, single, seen.lung, self.skipped)

    def _check_found(self, crops: Sequence[Crop], healthy_slices: Sequence[FittedSlice]) -> None:
        where, lost = self.data.dataset_dir, ", ".join(f"{n} {reason}" for reason, n in self.skipped.items())
        if not crops:
            raise UserError(
                f"{where}: no nodules to extract from {len(self.parts.generation)} scans "
                f"({lost or f'none {self.masks}'}); bring scans with nodules, or change the crop's settings"
            )
        if not healthy_slices:
            logger.warning("%s: no slices without nodules; give some by --healthy_slices_dir", where)

    def _check_elsewhere(self, folder: Path) -> None:
        strangers = {name for names in self.elsewhere.patients().values() for name in names}
        shared = strangers & {name for names in self.data.patients().values() for name in names}
        if shared:
            raise UserError(
                f"{folder}: patient {min(shared)} is in {self.data.dataset_dir} too, whose slices without "
                "nodules are taken anyway; remove the patient there, or leave healthy_slices_dir out"
            )

    def _report(self, counts: Mapping[str, int]) -> dict[str, Any]:
        settings = {
            "dataset_dir": str(self.data.dataset_dir),
            "healthy_slices_dir": None if self.healthy_slices_dir is None else str(self.healthy_slices_dir),
            "masks": self.masks,
            "share_for_enhancer": self.share,
            "healthy_share_for_enhancer": self.healthy_share,
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

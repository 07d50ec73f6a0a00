"""Extraction: scans become banks of nodules and of slices, and the probability map of nodule presence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from tqdm import tqdm

from bundles.lung_two_stage.extraction.crops import Crop, CropSettings, extract_crops, make_crop_bank
from bundles.lung_two_stage.extraction.presence_map import LungPoint, PresenceMap, locate_in_lung
from bundles.lung_two_stage.extraction.slices import (
    ExtractionSplit,
    FittedSlice,
    SegmentedScan,
    SliceSettings,
    find_healthy_slices,
    make_slice_bank,
    read_healthy_scans,
    segment_scan,
    split_for_enhancer,
)
from bundles.lung_two_stage.segmentation.inference import load_method
from common.data.datamodules import NoduleData
from common.data.nodules import NoduleSample, NoduleScan, label_pieces
from common.data.samples import Sample
from common.errors import UserError
from common.files import replaced_folder, write_json
from common.handlers.logging import pace

ANNOTATED, SEGMENTED = "annotated", "segmented"
UNKNOWN = "unknown"
"""Category of a segmented nodule that overlaps no annotated one."""
REPORT = "extraction.json"
"""Written last: what was extracted, of which patients, with which settings."""
NODULES, HEALTHY_SLICES, PRESENCE = "nodules", "healthy_slices", "presence.npz"
"""Of the patients to generate from: crops, slices without nodules, the presence map."""
OTHERS = "others"
"""Slices with and without nodules of the patients that are kept for the enhancer."""
TESTS, TEST_NODULES = "tests", "test_nodules"
"""Slices and crops of the test split, with the annotated nodules."""

MaskOf = Callable[[NoduleScan], NDArray[np.uint8]]
logger = logging.getLogger(__name__)


def mask_source(masks: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MaskOf:
    """A function from a scan to its nodules' mask, uint8 (Z, H, W) with values as `NoduleScan.mask` has them.

    Args:
        masks: `ANNOTATED` or `SEGMENTED`.
        ckpt_path: the segmenter's model, for `SEGMENTED`.
        device: where the segmenter runs.
    Raises:
        UserError: another source, no model, or a model that draws no masks.

    Example:
        >>> mask_source("annotated", "no model is needed") is annotated_mask
        True
    """
    if masks == ANNOTATED:
        return annotated_mask
    if masks != SEGMENTED:
        raise UserError(f"masks {masks!r} is unknown; choose {ANNOTATED} or {SEGMENTED}")
    method = load_method("segmenter", ckpt_path, device)

    def segmented_mask(scan: NoduleScan) -> NDArray[np.uint8]:
        mask = method.masks(scan)
        if mask is None:
            raise UserError(f"{ckpt_path}: this model draws no masks; give the segmentation's model")
        return assign_categories(mask, scan.mask, scan.categories)

    return segmented_mask


def annotated_mask(scan: NoduleScan) -> NDArray[np.uint8]:
    """The scan's own mask."""
    return scan.mask


def category_names(categories: Sequence[str], masks: str) -> list[str]:
    """The names of a mask's values 1, 2, ..., from one of the two sources."""
    return [*categories, UNKNOWN] if categories and masks == SEGMENTED else list(categories)


def assign_categories(
    mask: NDArray[np.uint8], annotated: NDArray[np.uint8], categories: Sequence[str]
) -> NDArray[np.uint8]:
    """A segmented mask {0, 1} with categories: each piece gets that of the annotation it overlaps most with.

    Pieces that overlap with none get the value after the last category; without categories all are 1.
    """
    result = np.where(mask > 0, len(categories) + 1, 0).astype(np.uint8)
    if not categories:
        return result
    pieces, count = label_pieces(mask)
    for number, box in enumerate(find_objects(pieces, count), 1):
        inside = pieces[box] == number
        values = annotated[box][inside]
        if values.any():
            result[box][inside] = np.bincount(values[values > 0]).argmax()
    return result


class Extraction:
    """Extracts the banks that the later stages work on.

    Args:
        data: the scans, split by patient.
        mask_of: gives a scan's nodules, see `mask_source`; for tests always the annotated ones.
        masks: name of that source.
        crops, slices: `CropSettings` and `SliceSettings`, or mappings of their arguments.
        presence: ``cells``, ``bandwidth`` and ``prior`` of `PresenceMap.from_points`.
        share: of the training patients that are kept for the enhancer.
        seed: of that choice.
        healthy_slices_dir: further slices without nodules, see
            `bundles.lung_two_stage.extraction.slices.find_healthy_slices`; with the data's offset.
        fractions, split_seed: how ``healthy_slices_dir`` is split.
        healthy_share: as ``share``, of the patients in ``healthy_slices_dir``; None for ``share``. If the
            data are crops, the enhancer learns from these patients alone.
    Raises:
        UserError: a setting is out of range, or too few patients.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from common.data.phantoms.writing import ensure_phantoms
        >>> settings = {"crops": {"crop_size": 16, "crop_mm": 48.0}, "slices": {"image_size": 32}}
        >>> with TemporaryDirectory() as work:
        ...     scans = ensure_phantoms(f"{work}/scans", patients=5, shape=(32, 32, 12), with_lesions=False)
        ...     report = Extraction(NoduleData(scans, parts=[]), **settings).run(f"{work}/extraction")
        ...     sorted(path.name for path in Path(work, "extraction").iterdir())
        ['extraction.json', 'healthy_slices', 'nodules', 'others', 'presence.npz', 'test_nodules', 'tests']
        >>> {part: len(names) for part, names in report["patients"].items()}
        {'generation': 1, 'enhancer': 2, 'test': 1}
    """

    def __init__(
        self,
        data: NoduleData,
        mask_of: MaskOf = annotated_mask,
        masks: str = ANNOTATED,
        crops: CropSettings | Mapping[str, Any] | None = None,
        slices: SliceSettings | Mapping[str, Any] | None = None,
        presence: Mapping[str, Any] | None = None,
        share: float = 0.3,
        seed: int = 0,
        healthy_slices_dir: str | os.PathLike[str] | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        healthy_share: float | None = None,
    ) -> None:
        self.data, self.mask_of, self.masks = data, mask_of, masks
        self.crops = crops if isinstance(crops, CropSettings) else CropSettings(**(crops or {}))
        self.slices = slices if isinstance(slices, SliceSettings) else SliceSettings(**(slices or {}))
        self.presence, self.share, self.seed = dict(presence or {}), share, seed
        self.healthy_share = share if healthy_share is None else healthy_share
        self.split = split_for_enhancer(data.records("train"), data.records("test"), share, seed)
        self.healthy_dir = None if healthy_slices_dir is None else Path(healthy_slices_dir)
        self.healthy_split: ExtractionSplit[Sample] = ExtractionSplit([], [], [])
        if self.healthy_dir is not None:
            offset, pattern, source_range = data.hu_offset, data.patient_pattern, data.source_range
            self.healthy_split = find_healthy_slices(
                self.healthy_dir,
                fractions,
                split_seed,
                self.healthy_share,
                seed,
                offset,
                pattern,
                source_range,
            )
            self._check_distinct_patients(self.healthy_dir)
        self.skipped: Counter[str] = Counter()
        self.categories: list[str] = []

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, with those of ``healthy_slices_dir``; no patient is in two."""
        own, more = self.split.patients(), self.healthy_split.patients()
        return {name: sorted({*own[name], *more[name]}) for name in own}

    def run(self, output_dir: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes the banks, the presence map and a report.

        The folder is complete or as it was before; an earlier extraction in it is replaced.

        Returns:
            The report, which ``extraction.json`` holds.
        Raises:
            UserError: a scan cannot be read, shows no lung, or there is no nodule to generate from.
        """
        self.skipped.clear()
        with replaced_folder(output_dir, REPORT) as folder:
            parts = self._extract_sources, self._extract_others, self._extract_tests
            counts = {name: count for part in parts for name, count in part(folder).items()}
            report = self._report(counts)
            write_json(folder / REPORT, report)
        logger.info("%s: %s", output_dir, "; ".join(f"{count} {name}" for name, count in counts.items()))
        for reason, count in self.skipped.items():
            logger.warning("%s: left out %d %s", output_dir, count, reason)
        return report

    def _extract_sources(self, folder: Path) -> dict[str, int]:
        """Nodules, healthy slices and the presence map, of the patients to generate from."""
        crops: list[Crop] = []
        healthy: list[FittedSlice] = []
        points: list[LungPoint | None] = []
        for record, scan in self._scans("generation", self.mask_of):
            own = list(self._crops(record, scan, category_names(scan.scan.categories, self.masks)))
            crops += own
            if scan.lung is not None:
                lungs = ((scan.lung[crop.position[0]], *crop.position[1:]) for crop in own)
                points += [locate_in_lung(*lung) for lung in lungs]
            healthy += scan.healthy_slices(self.slices)
        healthy += self._more_healthy_slices("generation")
        self._check_found(crops, healthy)
        make_crop_bank(crops, self.crops).save(folder / NODULES)
        make_slice_bank(healthy, self.slices.image_size).save(folder / HEALTHY_SLICES)
        known = [point for point in points if point is not None]
        PresenceMap.from_points(known, **self.presence).save(folder / PRESENCE)
        return {NODULES: len(crops), HEALTHY_SLICES: len(healthy), "places in the presence map": len(known)}

    def _extract_others(self, folder: Path) -> dict[str, int]:
        """Slices of the enhancer's patients."""
        others: list[FittedSlice] = []
        for _, scan in self._scans("enhancer", self.mask_of):
            others += scan.nodule_slices(self.slices) + scan.healthy_slices(self.slices)
        others += self._more_healthy_slices("enhancer")
        make_slice_bank(others, self.slices.image_size).save(folder / OTHERS)
        return {OTHERS: len(others)}

    def _extract_tests(self, folder: Path) -> dict[str, int]:
        """Slices and crops of the test patients, with the annotated nodules."""
        crops: list[Crop] = []
        tests: list[FittedSlice] = []
        for record, scan in self._scans("test", annotated_mask):
            crops += self._crops(record, scan, scan.scan.categories)
            tests += scan.nodule_slices(self.slices) + scan.healthy_slices(self.slices)
        tests += self._more_healthy_slices("test")
        make_crop_bank(crops, self.crops).save(folder / TEST_NODULES)
        make_slice_bank(tests, self.slices.image_size).save(folder / TESTS)
        return {TESTS: len(tests), TEST_NODULES: len(crops)}

    def _scans(self, part: str, mask_of: MaskOf) -> Iterator[tuple[NoduleSample, SegmentedScan]]:
        """The data's scans of a part with masks and lungs, behind a progress bar."""
        records: list[NoduleSample] = getattr(self.split, part)
        scans = self.data.read(records)
        for record, scan in zip(_bar(records, f"extracting for {part}"), scans, strict=True):
            names = category_names(scan.categories, self.masks)
            self.categories = names if len(names) > len(self.categories) else self.categories
            yield record, segment_scan(scan, mask_of(scan), self.slices, self.skipped)

    def _more_healthy_slices(self, part: str) -> list[FittedSlice]:
        """Slices of a part from ``healthy_slices_dir``."""
        samples: list[Sample] = getattr(self.healthy_split, part)
        slices: list[FittedSlice] = []
        scans = read_healthy_scans(_bar(samples, f"healthy slices for {part}"), self.data.window)
        for scan in scans:
            slices += segment_scan(scan, scan.mask, self.slices, self.skipped).healthy_slices(self.slices)
        return slices

    def _crops(self, record: NoduleSample, scan: SegmentedScan, categories: Sequence[str]) -> Iterator[Crop]:
        single = record.single and scan.mask is scan.scan.mask
        return extract_crops(scan.scan, scan.mask, categories, self.crops, single, scan.lung, self.skipped)

    def _check_found(self, crops: Sequence[Crop], healthy: Sequence[FittedSlice]) -> None:
        folder, scans = self.data.dataset_dir, len(self.split.generation)
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        if not crops:
            raise UserError(
                f"{folder}: no nodules to extract from {scans} scans ({reasons or f'none {self.masks}'}); "
                "bring scans with nodules, or change the crop's settings"
            )
        if not healthy:
            logger.warning("%s: no slices without nodules; give some by --healthy_slices_dir", folder)

    def _check_distinct_patients(self, folder: Path) -> None:
        healthy = {name for names in self.healthy_split.patients().values() for name in names}
        shared = healthy & {name for names in self.data.patients().values() for name in names}
        if shared:
            raise UserError(
                f"{folder}: patient {min(shared)} is in {self.data.dataset_dir} too, whose slices without "
                "nodules are taken anyway; remove the patient there, or leave healthy_slices_dir out"
            )

    def _report(self, counts: Mapping[str, int]) -> dict[str, Any]:
        settings = {
            "dataset_dir": str(self.data.dataset_dir),
            "healthy_slices_dir": None if self.healthy_dir is None else str(self.healthy_dir),
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


def _bar(items: Sequence[Any], title: str) -> tqdm:
    return tqdm(items, title, unit="scan", dynamic_ncols=True, disable=not items, **pace())

"""Table I: how well methods find and outline nodules on whole scans, all on the same ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from bundles.lung_two_stage.segmentation.inference import Method
from common.data.intensity import Window, to_unit
from common.data.nodules import Nodule, NoduleScan
from common.errors import UserError
from common.files import atomic_write, write_json
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.detection import (
    DECISION,
    LEAST_SCORE,
    RATES,
    Candidate,
    TrueNodule,
    froc,
    match_candidates,
)
from common.metrics.tables import format_interval, format_table
from common.rng import make_rng
from common.visualization import sheet, tiled

logger = logging.getLogger(__name__)


CRITERION = "a candidate hits a nodule where it lies within the nodule's radius of its centre"
CUT = f"candidates of a score of at least {LEAST_SCORE:g}, of all methods alike"
ACCURACY = (
    "share of slices told rightly to hold a nodule or none; a candidate of at least "
    f"{DECISION:g} holds in those in its radius"
)
RESAMPLES = 1000


@dataclass
class Findings:
    """What a method found on all scans.

    Args:
        candidates: of all scans.
        overlaps: voxels in both masks, in the method's, in the true one, in all: (4,) a scan; empty without
            masks. What is drawn in an excluded finding and in no nodule is not counted.
        slices: rightly told with a nodule, rightly told without, with, without: (4,) a scan.
    """

    candidates: list[Candidate] = field(default_factory=list)
    overlaps: list[tuple[int, int, int, int]] = field(default_factory=list)
    slices: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, method: Method, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """Runs the method on a scan; its mask, if it draws one."""
        found, mask = method.candidates(scan), method.masks(scan)
        self.candidates += found
        true = scan.mask > 0
        ignored = match_candidates(found, _true(scan, scan.nodules), _true(scan, scan.excluded)).ignored
        sure = [c for c, out in zip(found, ignored, strict=True) if c.score >= DECISION and not out]
        self.slices.append(_told(holding(sure, scan), np.asarray(true.any(axis=(1, 2)))))
        if mask is not None:
            drawn = mask > 0
            if scan.excluded:
                drawn &= true | (scan.excluded_mask() == 0)
            self.overlaps.append((int((true & drawn).sum()), int(drawn.sum()), int(true.sum()), true.size))
        return mask


@dataclass(frozen=True)
class Example:
    """A slice for the panel: HU and masks (H, W), those of the methods by name."""

    name: str
    hu: NDArray[np.int16]
    truth: NDArray[np.uint8]
    masks: dict[str, NDArray[np.uint8]]


@dataclass
class Comparison:
    """All methods on all scans.

    Args:
        result: for ``metrics.json``.
        examples: one slice of each of some scans.
    """

    result: dict[str, Any]
    examples: list[Example]


def compare(
    methods: Sequence[Method],
    scans: Iterable[NoduleScan],
    count: int,
    shown: int = 6,
    seed: int = 0,
    rates: Sequence[float] = RATES,
) -> Comparison:
    """Runs all methods on all scans, one scan after the other.

    Args:
        methods: with names of their own.
        scans: read once.
        count: how many there are.
        shown: scans to show, spread evenly.
        seed: of the bootstrap, whose resamples all methods share; patients are drawn whole.
        rates: false positives a scan at which sensitivity is read.
    Raises:
        UserError: no scans, or two methods with one name.
    """
    names = [method.name for method in methods]
    if len(set(names)) < len(names) or not names:
        raise UserError(f"methods {names}: give at least one, each with a name of its own")
    findings = {name: Findings() for name in names}
    truth, excluded, facts, examples = list[TrueNodule](), list[TrueNodule](), [], []
    wanted = set(np.linspace(0, count - 1, min(shown, count)).round().astype(int)) if count else set()
    for number, scan in enumerate(tqdm(scans, total=count, desc="evaluating", unit="scan", leave=False)):
        masks = {method.name: findings[method.name].add(method, scan) for method in methods}
        truth += _true(scan, scan.nodules)
        excluded += _true(scan, scan.excluded)
        facts.append(_Facts(scan.name, scan.patient, len(scan.hu), int((scan.mask > 0).any((1, 2)).sum())))
        if number in wanted:
            examples.append(_example(scan, masks))
    if not facts:
        raise UserError("no scans to evaluate on; give a folder with scans")
    result = {
        "data": {**_counted(facts, truth), "excluded": len(excluded)},
        "criterion": CRITERION,
        "cut": CUT,
        "accuracy": ACCURACY,
        "methods": {name: _measured(findings[name], truth, excluded, facts, rates, seed) for name in names},
    }
    return Comparison(result, examples)


def holding(candidates: Sequence[Candidate], scan: NoduleScan) -> NDArray[np.bool_]:
    """The slices (Z,) that a method says hold a nodule: each candidate's nearest, and those in its radius."""
    depth, step = len(scan.hu), scan.spacing[0]
    places = np.arange(depth) * step
    found = np.zeros(depth, bool)
    for candidate in candidates:
        away = np.abs(places - candidate.position_mm[0])
        found |= away <= candidate.radius_mm
        found[away.argmin()] = True
    return found


@dataclass(frozen=True)
class _Facts:
    name: str
    patient: str
    slices: int
    with_nodule: int


def _true(scan: NoduleScan, nodules: Sequence[Nodule]) -> list[TrueNodule]:
    return [TrueNodule(scan.name, nodule.centre_mm, nodule.diameter_mm) for nodule in nodules]


def _told(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    return int((found & true).sum()), int((~found & ~true).sum()), int(true.sum()), int((~true).sum())


def _measured(
    findings: Findings,
    truth: Sequence[TrueNodule],
    excluded: Sequence[TrueNodule],
    facts: Sequence[_Facts],
    rates: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """A method's line: detection, slices, and overlap where it draws masks."""
    patients = {fact.name: fact.patient for fact in facts}
    names = list(patients)
    found = froc(findings.candidates, truth, names, rates, patients, RESAMPLES, seed, excluded)
    detection = found.plain()
    resamples = Resamples.draw(list(patients.values()), len(names), RESAMPLES, make_rng(seed, "table"))
    slices = torch.tensor(findings.slices, dtype=torch.float64)  # (scans, 4)
    values = {"slice_accuracy": resamples.ratio(slices, _accuracy)}
    if findings.overlaps:
        overlaps = torch.tensor(findings.overlaps, dtype=torch.float64)  # (scans, 4)
        values |= {
            "dice": _mean_dice(resamples, overlaps),
            "pooled_dice": resamples.ratio(overlaps, _dice),
            "pixel_accuracy": resamples.ratio(overlaps, _pixel_accuracy),
        }
    return {**detection, **{name: value.within(0, 1).plain() for name, value in values.items()}}


def _accuracy(told: Tensor) -> float:
    return float((told[0] + told[1]) / (told[2] + told[3]))


def _dice(overlap: Tensor) -> float:
    """NaN where neither mask has anything."""
    return float(2 * overlap[0] / (overlap[1] + overlap[2]))


def _pixel_accuracy(overlap: Tensor) -> float:
    """The share of pixels on the right side of both masks: high for any method, as nodules are small."""
    return float(1 - (overlap[1] + overlap[2] - 2 * overlap[0]) / overlap[3])


def _mean_dice(resamples: Resamples, overlaps: Tensor) -> Value:
    """The mean over the scans with a nodule."""
    usable = overlaps[:, 2] > 0
    both, found, true, _ = overlaps[usable].T
    return resamples.subset(usable).mean(2 * both / (found + true))


def _counted(facts: Sequence[_Facts], truth: Sequence[TrueNodule]) -> dict[str, int]:
    return {
        "scans": len(facts),
        "patients": len({fact.patient for fact in facts}),
        "nodules": len(truth),
        "slices": sum(fact.slices for fact in facts),
        "slices_with_nodules": sum(fact.with_nodule for fact in facts),
    }


def _example(scan: NoduleScan, masks: dict[str, NDArray[np.uint8] | None]) -> Example:
    """The slice in which the scan's nodules are largest."""
    z = int((scan.mask > 0).sum(axis=(1, 2)).argmax())
    drawn = {name: mask[z] for name, mask in masks.items() if mask is not None}
    return Example(scan.name, scan.hu[z], (scan.mask[z] > 0).astype(np.uint8), drawn)


SIDE = 96
"""Largest side in pixels of what the panel shows of a slice."""
FOUND, TRUE = (0.90, 0.35, 0.0), (0.0, 0.75, 0.95)
"""Colours of the outlines, red, green and blue."""
COLUMNS = {
    "sensitivity": "sensitivity",
    "candidates_per_scan": "candidates/scan",
    "false_positives_per_scan": "false/scan",
    "cpm": "CPM",
    "slice_accuracy": "accuracy",
    "dice": "Dice",
}


def write_report(
    comparison: Comparison, folder: str | os.PathLike[str], window: Window, facts: Mapping[str, Any]
) -> None:
    """Writes ``metrics.json``, ``table.txt`` and ``panel.png`` into ``folder`` and shows the table.

    Args:
        comparison: see `bundles.lung_two_stage.segmentation.evaluate.compare`.
        window: HU that the panel shows black and white.
        facts: further entries of ``metrics.json``, such as the models' files.
    """
    place = Path(folder)
    text = table(comparison.result)
    with atomic_write(place / "table.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    save_panel(place / "panel.png", comparison.examples, window)
    write_json(place / "metrics.json", {**comparison.result, **facts})
    logger.info(f"{place / 'metrics.json'}\n{text}")


def table(result: Mapping[str, Any]) -> str:
    """One method a line: value and 95 % interval, ``-`` where it has none."""
    rows = [["method", *COLUMNS.values()]]
    for name, line in result["methods"].items():
        rows.append([name, *(_cell(line.get(key)) for key in COLUMNS)])
    data = result["data"]
    excluded = f" {data['excluded']} excluded findings count neither way." if data.get("excluded") else ""
    note = (
        f"{data['scans']} scans of {data['patients']} patients, {data['nodules']} nodules in "
        f"{data['slices_with_nodules']} of {data['slices']} slices.{excluded}\n"
        f"Sensitivity and CPM: {result['criterion']}; CPM is the mean sensitivity at 1/8 to 8 false\n"
        f"positives a scan, {result['cut']}.\nAccuracy: {result['accuracy']}."
    )
    few = few_patients(data["patients"])
    return "\n".join([format_table(rows), note, *([] if few is None else [f"warning: {few}"])])


def save_panel(path: str | os.PathLike[str], examples: Sequence[Example], window: Window) -> None:
    """The panel as PNG: CT, CT with the true outline, then with each method's; a slice a row.

    Methods that drew nothing in any of the slices are left out.
    """
    cut = [_around(example) for example in examples]
    side = max(max(example.hu.shape) for example in cut)
    methods = [name for name in cut[0].masks if any(example.masks[name].any() for example in cut)]
    columns = [
        torch.stack([_picture(example, None, window, TRUE, side) for example in cut]),
        torch.stack([_picture(example, example.truth, window, TRUE, side) for example in cut]),
        *(
            torch.stack([_picture(example, example.masks[name], window, FOUND, side) for example in cut])
            for name in methods
        ),
    ]
    with atomic_write(path) as temporary:
        picture = sheet(tiled(columns), ["CT", "true", *methods], [example.name for example in cut])
        picture.save(temporary, format="PNG", optimize=True)


def _around(example: Example) -> Example:
    """The part around the nodules."""
    places = np.argwhere(example.truth)
    centre = places.mean(axis=0) if len(places) else np.array(example.truth.shape) / 2
    box = tuple(
        slice(start, start + SIDE)
        for start in (
            int(np.clip(round(middle - SIDE / 2), 0, max(0, extent - SIDE)))
            for middle, extent in zip(centre, example.truth.shape, strict=True)
        )
    )
    masks = {name: mask[box] for name, mask in example.masks.items()}
    return Example(example.name, example.hu[box], example.truth[box], masks)


def _picture(
    example: Example, mask: NDArray[np.uint8] | None, window: Window, colour: Sequence[float], side: int
) -> Tensor:
    """(3, side, side) in [0, 1]: the CT with the mask's outline, drawn just outside of it."""
    gray = to_unit(example.hu, window, is_hu=True)
    picture = np.repeat(gray[None], 3, axis=0)  # (3, H, W)
    if mask is not None:
        outline = ndimage.binary_dilation(mask > 0) & (mask == 0)
        picture[:, outline] = np.array(colour, np.float32)[:, None]
    square = np.ones((3, side, side), np.float32)
    square[:, : gray.shape[0], : gray.shape[1]] = picture
    return torch.from_numpy(square)


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    return format_interval(value)

"""How well methods detect and segment nodules: Table I on whole scans, and the metrics of a validation."""

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
from common.data.loaders import example_batch
from common.data.nodule_slices import NoduleSliceDataset
from common.data.nodules import Nodule, NoduleScan
from common.errors import UserError
from common.files import atomic_write, write_json
from common.inference.prepare_batch import prediction_target_condition
from common.metrics.bootstrap import Resamples, few_patients
from common.metrics.detection import (
    DECISION,
    LEAST_SCORE,
    RATES,
    Candidate,
    TrueNodule,
    froc,
    match_candidates,
)
from common.metrics.evaluate import format_interval, format_table
from common.metrics.ignite_metrics import SumMetric
from common.rng import make_rng
from common.visualization import sheet, tiled

logger = logging.getLogger(__name__)

CRITERION = "a candidate hits a nodule if it lies within the nodule's radius of its centre"
CUT = f"candidates with a score of at least {LEAST_SCORE:g}, for all methods alike"
ACCURACY = (
    "share of slices classified correctly as with or without a nodule; a candidate with a score of at least "
    f"{DECISION:g} marks the slices within its radius"
)
RESAMPLES = 1000


@dataclass
class MethodCounts:
    """What a method found in all scans.

    Args:
        candidates: of all scans.
        overlaps: for each scan, voxels in both masks, in the method's, in the true one, and in all; empty
            without masks. Voxels in an excluded finding and in no nodule do not count.
        slices: for each scan, true positive slices, true negative ones, positives and negatives.
    """

    candidates: list[Candidate] = field(default_factory=list)
    overlaps: list[tuple[int, int, int, int]] = field(default_factory=list)
    slices: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, method: Method, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """Runs the method on a scan; returns its mask, if it draws one."""
        candidates, mask = method.candidates(scan), method.masks(scan)
        self.candidates += candidates
        nodule = scan.mask > 0
        matched = match_candidates(candidates, _truth(scan, scan.nodules), _truth(scan, scan.excluded))
        sure = [
            c for c, out in zip(candidates, matched.ignored, strict=True) if c.score >= DECISION and not out
        ]
        marked, true = mark_slices(sure, scan), np.asarray(nodule.any(axis=(1, 2)))
        counts = (marked & true, ~marked & ~true, true, ~true)
        self.slices.append(tuple(int(count.sum()) for count in counts))  # type: ignore[arg-type]
        if mask is not None:
            drawn = mask > 0
            if scan.has_excluded:
                drawn &= nodule | (scan.excluded_mask() == 0)
            both, every = int((nodule & drawn).sum()), nodule.size
            self.overlaps.append((both, int(drawn.sum()), int(nodule.sum()), every))
        return mask


@dataclass(frozen=True)
class Example:
    """A slice for the panel: HU (H, W), the true mask, and those of the methods by name."""

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
) -> Comparison:
    """Runs all methods on all scans, one scan after the other.

    Args:
        methods: with different names.
        scans: read once.
        count: number of scans.
        shown: scans in the panel, evenly spread.
        seed: of the bootstrap over patients, whose resamples all methods share.
    Raises:
        UserError: no scans, no methods, or two with the same name.

    Example:
        >>> from bundles.lung_two_stage.segmentation.inference import EmptyMask
        >>> mask = np.zeros((4, 8, 8), np.uint8)
        >>> scan = NoduleScan(mask.astype(np.int16), mask, (1.0, 1.0, 1.0), "a", "a", ())
        >>> compare([EmptyMask()], [scan], 1).result["methods"]["empty mask"]["slice_accuracy"]["mean"]
        1.0
    """
    names = [method.name for method in methods]
    if len(set(names)) < len(names) or not names:
        raise UserError(f"methods {names}: give at least one, each with a name of its own")
    counts = {name: MethodCounts() for name in names}
    truth, excluded, facts, examples = list[TrueNodule](), list[TrueNodule](), [], []
    pictured = set(np.linspace(0, count - 1, min(shown, count)).round().astype(int)) if count else set()
    for number, scan in enumerate(tqdm(scans, total=count, desc="evaluating", unit="scan", leave=False)):
        masks = {method.name: counts[method.name].add(method, scan) for method in methods}
        truth += _truth(scan, scan.nodules)
        excluded += _truth(scan, scan.excluded)
        facts.append(_Facts(scan.name, scan.patient, len(scan.hu), int((scan.mask > 0).any((1, 2)).sum())))
        if number in pictured:
            examples.append(_example(scan, masks))
    if not facts:
        raise UserError("no scans to evaluate on; give a folder with scans")
    result = {
        "data": {
            "scans": len(facts),
            "patients": len({fact.patient for fact in facts}),
            "nodules": len(truth),
            "slices": sum(fact.slices for fact in facts),
            "slices_with_nodules": sum(fact.with_nodule for fact in facts),
            "excluded": len(excluded),
        },
        "criterion": CRITERION,
        "cut": CUT,
        "accuracy": ACCURACY,
        "methods": {name: _measure(counts[name], truth, excluded, facts, seed) for name in names},
    }
    return Comparison(result, examples)


def mark_slices(candidates: Sequence[Candidate], scan: NoduleScan) -> NDArray[np.bool_]:
    """The slices (Z,) with a candidate: each candidate's nearest, and those within its radius."""
    positions = np.arange(len(scan.hu)) * scan.spacing[0]
    marked = np.zeros(len(scan.hu), bool)
    for candidate in candidates:
        distance = np.abs(positions - candidate.position_mm[0])
        marked |= distance <= candidate.radius_mm
        marked[distance.argmin()] = True
    return marked


@dataclass(frozen=True)
class _Facts:
    name: str
    patient: str
    slices: int
    with_nodule: int


def _truth(scan: NoduleScan, nodules: Sequence[Nodule]) -> list[TrueNodule]:
    return [TrueNodule(scan.name, nodule.centre_mm, nodule.diameter_mm) for nodule in nodules]


def _measure(
    counts: MethodCounts,
    truth: Sequence[TrueNodule],
    excluded: Sequence[TrueNodule],
    facts: Sequence[_Facts],
    seed: int,
) -> dict[str, Any]:
    """A method's metrics: detection, slices, and overlap if it draws masks."""
    patients = {fact.name: fact.patient for fact in facts}
    curve = froc(counts.candidates, truth, list(patients), RATES, patients, RESAMPLES, seed, excluded)
    resamples = Resamples.draw(list(patients.values()), len(patients), RESAMPLES, make_rng(seed, "table"))
    slices = torch.tensor(counts.slices, dtype=torch.float64)  # (scans, 4)
    values = {"slice_accuracy": resamples.ratio(slices, lambda n: float((n[0] + n[1]) / (n[2] + n[3])))}
    if counts.overlaps:
        overlaps = torch.tensor(counts.overlaps, dtype=torch.float64)  # (scans, 4)
        usable = overlaps[:, 2] > 0  # scans with a nodule
        both, drawn, true, _ = overlaps[usable].T
        values |= {
            "dice": resamples.subset(usable).mean(2 * both / (drawn + true)),
            "pooled_dice": resamples.ratio(overlaps, lambda n: float(2 * n[0] / (n[1] + n[2]))),
            "pixel_accuracy": resamples.ratio(  # high for any method, as nodules are small
                overlaps, lambda n: float(1 - (n[1] + n[2] - 2 * n[0]) / n[3])
            ),
        }
    return {**curve.plain(), **{name: value.within(0, 1).plain() for name, value in values.items()}}


def _example(scan: NoduleScan, masks: dict[str, NDArray[np.uint8] | None]) -> Example:
    """The slice with the most nodule pixels."""
    z = int((scan.mask > 0).sum(axis=(1, 2)).argmax())
    drawn = {name: mask[z] for name, mask in masks.items() if mask is not None}
    return Example(scan.name, scan.hu[z], (scan.mask[z] > 0).astype(np.uint8), drawn)


SIDE = 96
"""Largest side of the panel's images in pixels."""
FOUND, TRUE = (0.90, 0.35, 0.0), (0.0, 0.75, 0.95)
"""RGB colours of the outlines."""
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
    """Writes ``metrics.json``, ``table.txt`` and ``panel.png`` into a folder, and logs the table.

    Args:
        comparison: from `compare`.
        folder: is made where missing.
        window: HU that the panel shows black and white.
        facts: further entries of ``metrics.json``, such as the models' files.

    Example:
        >>> from tempfile import mkdtemp
        >>> from bundles.lung_two_stage.segmentation.inference import EmptyMask
        >>> folder, mask = Path(mkdtemp()), np.zeros((4, 8, 8), np.uint8)
        >>> scan = NoduleScan(mask.astype(np.int16), mask, (1.0, 1.0, 1.0), "a", "a", ())
        >>> write_report(compare([EmptyMask()], [scan], 1), folder, Window(-1000, 400), {"seed": 0})
        >>> sorted(path.name for path in folder.iterdir())
        ['metrics.json', 'panel.png', 'table.txt']
    """
    target = Path(folder)
    text = write_table(comparison.result)
    with atomic_write(target / "table.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    save_panel(target / "panel.png", comparison.examples, window)
    write_json(target / "metrics.json", {**comparison.result, **facts})
    logger.info(f"{target / 'metrics.json'}\n{text}")


def write_table(result: Mapping[str, Any]) -> str:
    """The table as text, a method a line: values with 95 % intervals, ``-`` for none."""
    rows = [["method", *COLUMNS.values()]]
    for name, line in result["methods"].items():
        rows.append([name, *(_cell(line.get(key)) for key in COLUMNS)])
    data = result["data"]
    excluded = f" {data['excluded']} excluded findings do not count." if data.get("excluded") else ""
    note = (
        f"{data['scans']} scans of {data['patients']} patients, {data['nodules']} nodules in "
        f"{data['slices_with_nodules']} of {data['slices']} slices.{excluded}\n"
        f"Sensitivity and CPM: {result['criterion']}; CPM is the mean sensitivity at 1/8 to 8 false\n"
        f"positives per scan, {result['cut']}.\nAccuracy: {result['accuracy']}."
    )
    few = few_patients(data["patients"])
    return "\n".join([format_table(rows), note, *([] if few is None else [f"warning: {few}"])])


def save_panel(path: str | os.PathLike[str], examples: Sequence[Example], window: Window) -> None:
    """Writes the panel as PNG, a slice a row: CT, CT with the true outline, then with each method's.

    Methods that drew nothing in any of the slices are left out.
    """
    shown = [_crop_around_nodules(example) for example in examples]
    side = max(max(example.hu.shape) for example in shown)
    methods = [name for name in shown[0].masks if any(example.masks[name].any() for example in shown)]
    columns = [
        [_draw(example.hu, None, window, TRUE, side) for example in shown],
        [_draw(example.hu, example.truth, window, TRUE, side) for example in shown],
        *(
            [_draw(example.hu, example.masks[name], window, FOUND, side) for example in shown]
            for name in methods
        ),
    ]
    picture = sheet(
        tiled([torch.stack(column) for column in columns]),
        ["CT", "true", *methods],
        [example.name for example in shown],
    )
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def _crop_around_nodules(example: Example) -> Example:
    """At most `SIDE` pixels in each direction around the centre of the nodules."""
    nodule = np.argwhere(example.truth)
    centre = nodule.mean(axis=0) if len(nodule) else np.array(example.truth.shape) / 2
    box = tuple(
        slice(start, start + SIDE)
        for start in (
            int(np.clip(round(middle - SIDE / 2), 0, max(0, extent - SIDE)))
            for middle, extent in zip(centre, example.truth.shape, strict=True)
        )
    )
    masks = {name: mask[box] for name, mask in example.masks.items()}
    return Example(example.name, example.hu[box], example.truth[box], masks)


def _draw(
    hu: NDArray[np.int16],
    mask: NDArray[np.uint8] | None,
    window: Window,
    colour: Sequence[float],
    side: int,
) -> Tensor:
    """(3, side, side) in [0, 1]: the CT with the mask's outline, drawn just outside of it."""
    gray = to_unit(hu, window, is_hu=True)
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


def example_images(dataset: NoduleSliceDataset, count: int) -> dict[str, Tensor]:
    """A batch for image grids: the CT as condition, the true mask in [-1, 1] as real image.

    The grid shows the logits from -1 (black) to 1 (white) between the two.

    Example:
        >>> item = {"image": torch.zeros(1, 8, 8), "label": torch.ones(1, 8, 8)}
        >>> {name: float(images.mean()) for name, images in example_images([item], 1).items()}
        {'label': 0.0, 'image': 1.0}
    """
    batch = example_batch(dataset, count)
    return {"label": batch["image"], "image": batch["label"] * 2 - 1}


def mask_and_truth(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: predicted and true mask, (B, 1, H, W) in {0, 1}.

    Example:
        >>> logits = torch.tensor([[[[-1.0, 0.0, 2.0]]]])
        >>> mask_and_truth({"pred": logits, "label": torch.ones(1, 1, 1, 3), "image": logits})[0].tolist()
        [[[[0.0, 0.0, 1.0]]]]
    """
    logits, truth, _ = prediction_target_condition(output)
    return (logits > 0).float(), truth


class NoduleSensitivity(SumMetric):
    """Share of patches with a nodule in which the predicted mask overlaps it, in [0, 1].

    Args:
        output_transform: engine output -> (mask, true mask), (B, 1, H, W) in {0, 1}.

    Example:
        >>> metric, true = NoduleSensitivity(), torch.ones(2, 1, 4, 4)
        >>> metric.update((true * torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), true))
        >>> metric.compute()
        0.5
    """

    shape = (2,)  # with a nodule that is touched, with a nodule

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """The patches of a batch."""
        drawn, true = (item.cpu() > 0 for item in batch[:2])
        return torch.stack([part.flatten(1).any(1).sum() for part in (drawn & true, true)])

    def value(self, sums: Tensor) -> float:
        """The share; 0 if there was no nodule."""
        touched, present = sums.tolist()
        return touched / present if present else 0.0

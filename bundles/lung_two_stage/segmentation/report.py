"""The comparison of Table I as files and for the terminal: metrics, table, panel."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bundles.lung_two_stage.segmentation.evaluation import Comparison, Example
from common.data.intensity import Window, to_unit
from common.files import atomic_write, write_json
from common.metrics.bootstrap import few_patients
from common.metrics.report import aligned, with_interval
from common.metrics.sheet import sheet, tiled

logger = logging.getLogger(__name__)
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
        comparison: see `bundles.lung_two_stage.segmentation.evaluation.compare`.
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
    return "\n".join([aligned(rows), note, *([] if few is None else [f"warning: {few}"])])


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
    return with_interval(value)

"""The values of mask and label files: whole labels, soft masks with a threshold, values to ignore.

All readers of masks come here, so that ``mask_threshold`` and ``ignore_value`` mean the same in all commands.
Ignored voxels are background where something is drawn or learnt from a mask.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

logger = logging.getLogger(__name__)
ROUNDING = 0.01
"""How far a value may lie from a whole number; headers with a scale lose about 1e-5."""
MOST_LABELS = 16
"""More different values than this are a soft mask or a photograph, where one structure is wanted."""
IGNORE_OR_LOSSY = 128
"""From this value on, a value beside other labels marks voxels to ignore (255), or the file is lossy."""
_noted: set[tuple[str, Path]] = set()


def check_threshold(mask_threshold: Any) -> float:
    """Returns the threshold of soft masks as a number above 0.

    Raises:
        UserError: no such number.
    """
    try:
        threshold = float(mask_threshold)
    except (TypeError, ValueError):
        threshold = float("nan")
    if not 0 < threshold < float("inf"):
        raise UserError(
            f"mask_threshold {mask_threshold}: give the least value that is part of the structure, above 0: "
            "0.5 for probabilities, 128 for masks of 0 to 255"
        )
    return threshold


def check_ignored(ignore_value: Any) -> tuple[int, ...]:
    """Returns the values to ignore: one whole number, several, or None for none.

    Raises:
        UserError: something else.

    Example:
        >>> check_ignored("255"), check_ignored([-1, 255]), check_ignored(None)
        ((255,), (-1, 255), ())
    """
    several = isinstance(ignore_value, list | tuple)
    values = [] if ignore_value is None else ignore_value if several else [ignore_value]
    try:
        whole = tuple(int(str(value)) for value in values)
    except ValueError as error:
        raise UserError(
            f"ignore_value {ignore_value}: give whole numbers, such as 255 or '[-1, 255]'"
        ) from error
    if 0 in whole:
        raise UserError("ignore_value 0: 0 is the background; leave ignore_value out")
    return whole


def whole_labels(
    values: np.ndarray,
    source: Path,
    threshold: float | None = None,
    ignored: Sequence[int] = (),
) -> NDArray[np.integer]:
    """Converts mask values of any type to whole labels from 0 on, of the same shape.

    Values within 0.01 of a whole number are rounded, and one line for each folder says so.

    Args:
        values: of a mask or label file.
        source: the file, for messages.
        threshold: makes 0 and 1 of a soft mask: a value of at least this is 1.
        ignored: values that become 0; before the threshold.
    Raises:
        UserError: NaN, negative values, or a soft mask without threshold.

    Example:
        >>> whole_labels(np.array([0.2, 0.7, 255.0]), Path("m.nii"), threshold=0.5, ignored=[255]).tolist()
        [0, 1, 0]
    """
    array = np.asarray(values)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{source}: holds NaN or infinite values; repair or remove the mask")
    for value in ignored:
        array = np.where(np.abs(array - float(value)) <= ROUNDING, array.dtype.type(0), array)
    if threshold is not None:
        return (array >= threshold).astype(np.uint8)
    labels = _rounded(array, source) if array.dtype.kind == "f" else array
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        if np.unique(labels[labels < 0]).size > 2:
            raise UserError(f"{source}: holds many negative values, so it is no label file; is it an image?")
        raise UserError(
            f"{source}: value {labels.min()} is no label; if it marks voxels to ignore, give "
            f"--ignore_value {labels.min()}, else save whole numbers from 0 (background) upwards"
        )
    return labels


def _rounded(array: np.ndarray, source: Path) -> NDArray[np.int64]:
    whole = np.rint(array)
    soft = np.abs(array - whole) > ROUNDING
    if soft.any():
        raise UserError(
            f"{source}: holds {array[soft][0]:.4g} and other values between whole numbers, which are no "
            "labels but a soft mask; give --mask_threshold, such as 0.5 for probabilities"
        )
    if (array != whole).any():
        _note_once("rounding", source, f"{source}: its values, such as {array[array != whole][0]:.7g}, are "
                   "rounded to whole labels; other files of this folder likewise")  # fmt: skip
    return whole.astype(np.int64)


def structure_mask_of(
    values: np.ndarray,
    source: Path,
    threshold: float | None = None,
    ignored: Sequence[int] = (),
    wanted: Sequence[int] | None = None,
    background: Sequence[int] = (0,),
) -> NDArray[np.uint8]:
    """Converts mask values to uint8 {0, 1}, where one structure is wanted.

    Args:
        values, source, threshold, ignored: see `whole_labels`.
        wanted: values that mean the structure; None for all but 0.
        background: values that are expected beside those.
    Raises:
        UserError: see `whole_labels`; values that are neither wanted nor background; or 255 beside other
            labels, which is lossy compression or a value to ignore.

    Example:
        >>> lungs_and_lesion = np.array([0, 1, 2, 3])
        >>> structure_mask_of(lungs_and_lesion, Path("m.png"), wanted=[3], background=[0, 1, 2]).tolist()
        [0, 0, 0, 1]
    """
    labels = whole_labels(values, source, threshold, ignored)
    if threshold is not None:
        return labels.astype(np.uint8)
    present = np.unique(labels[labels != 0])
    if present.size >= MOST_LABELS:
        raise UserError(
            f"{source}: holds {np.unique(labels).size} different values, so it is no label mask; save labels "
            "(0 and 1, losslessly), or give --mask_threshold, such as 128 for masks of 0 to 255"
        )
    if wanted is not None:
        unknown = present[~np.isin(present, (*wanted, *background))]
        if unknown.size:
            raise UserError(
                f"{source}: unexpected mask values {_listed(unknown)}; expected lesion {list(wanted)}"
            )
        return np.isin(labels, wanted).astype(np.uint8)
    if present.size > 1 and present[-1] >= IGNORE_OR_LOSSY:
        raise UserError(
            f"{source}: holds {_listed(present[:-1])} beside {present[-1]}; give --mask_threshold 128 if "
            f"lossy compression made these of 0 and 255, or --ignore_value {present[-1]} if that is to be "
            "ignored"
        )
    if present.size > 1:
        _note_once("labels", source, f"{source}: the labels {_listed(present)} all count as one structure; "
                   "other files of this folder likewise")  # fmt: skip
    return (labels != 0).astype(np.uint8)


def check_scale(
    highest: float,
    values: np.ndarray,
    threshold: float | None,
    source: Path,
    ignored: Sequence[int] = (),
) -> None:
    """Refuses a threshold that cannot belong to the scale of a soft mask.

    Args:
        highest: the highest value of the file.
        values: the file's values, or a part of them.
        threshold: None is no threshold.
        ignored: values that are no part of the scale.
    Raises:
        UserError: real numbers up to 1 with a threshold above 1, or 0 to 255 with one of 1 or less.

    Example:
        >>> check_scale(255, np.array([0, 255]), 0.5, Path("m.png"))  # both values lie on one side
    """
    if threshold is None:
        return
    if ignored:
        values = values[~np.isin(values, ignored)]
        highest = float(values.max()) if highest in ignored and values.size else highest
    if threshold > 1 and 0 < highest <= 1 and values.dtype.kind == "f":
        raise UserError(
            f"{source}: its values reach {highest:.4g}, so mask_threshold {threshold:g} leaves nothing; give "
            "--mask_threshold 0.5 for probabilities"
        )
    if threshold <= 1 and highest > MOST_LABELS and np.unique(values[values > 0]).size > 1:
        raise UserError(
            f"{source}: its values reach {highest:g}, so mask_threshold {threshold:g} takes all but 0; give "
            "--mask_threshold 128 for masks of 0 to 255"
        )


def _note_once(kind: str, source: Path, message: str) -> None:
    """Logs a warning once for each folder."""
    key = (kind, source.parent)
    if key not in _noted:
        _noted.add(key)
        logger.warning(message)


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return shown + (", ..." if values.size > 5 else "")

"""Intensities: HU windows, the unit range of files and pictures, the range of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError

AIR = -1024.0
"""HU of air, or a little less: what lies below is a scanner's padding around its circle of view."""
EIGHT_BIT_WHITE = 255.0
NO_AIR = -1200.0
"""What is lower than this after an offset was added had no need of one."""


@dataclass(frozen=True)
class Window:
    """A HU window: ``lower`` becomes 0 (black), ``upper`` becomes 1 (white)."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise UserError(
                f"window {self.lower}..{self.upper}: the lower end must be below the upper end (HU)"
            )

    @property
    def width(self) -> float:
        """Extent in HU."""
        return self.upper - self.lower


WINDOWS: dict[str, Window] = {
    "lung": Window(-1000, 400),
    "lung_wide": Window(-1350, 150),
    "mediastinum": Window(-160, 240),
    "soft_tissue": Window(-150, 250),
    "bone": Window(-450, 1050),
    "angiography": Window(-200, 600),
    "wide": Window(-1024, 3071),
}


def window_by_name(window: str | Window | Sequence[float]) -> Window:
    """A preset's name, a (lower, upper) pair in HU, or a `Window` itself.

    Raises:
        UserError: no such preset, or no such range.
    """
    if isinstance(window, Window):
        return window
    if isinstance(window, str):
        if window not in WINDOWS:
            raise UserError(
                f"window {window!r} is unknown; choose {', '.join(WINDOWS)} or give [lower, upper] in HU"
            )
        return WINDOWS[window]
    if len(window) != 2:
        raise UserError(f"window {window!r}: give two numbers, [lower, upper] in HU")
    return Window(float(window[0]), float(window[1]))


def parse_window(words: Sequence[str]) -> Window:
    """A window from the words of a command line: a preset's name, or two numbers in HU.

    Raises:
        UserError: neither.

    Example:
        >>> parse_window(["-1000", "400"])
        Window(lower=-1000.0, upper=400.0)
    """
    if len(words) == 1 and "," not in words[0]:
        return window_by_name(words[0])
    try:
        return window_by_name([float(word) for word in " ".join(words).replace(",", " ").split()])
    except ValueError as error:
        raise UserError(f"--window {' '.join(words)}: give one name or two numbers in HU") from error


def value_range(array: np.ndarray) -> tuple[float, float]:
    """The lowest value that is no padding (see `AIR`), and the highest."""
    lowest, highest = array.min(), array.max()
    if lowest < AIR <= highest:
        lowest = array.min(where=array >= AIR, initial=highest)
    return float(lowest), float(highest)


def offset_to_hu(
    values: tuple[float, float], hu_offset: float | None, source: object, hint: str = ""
) -> float:
    """What is to be added to stored values that pass for HU, so that they are.

    A CT has air, at about -1000 HU. Values above 255 of which none lies between -1024 and 0 are a CT stored
    with an offset (HU + 1024, or DICOM's stored values without their rescaling), or no CT.

    Args:
        values: their `value_range`, of the whole file.
        hu_offset: what the user says is to be added (-1024); 0 says that they are HU; None that nothing is
            known. Files that have air below 0 already are HU, and stay as they are.
        source: the file, for the message.
        hint: added to the message.
    Raises:
        UserError: nothing is known, and there is no air; or the offset is no number.
    """
    lowest, highest = values
    if hu_offset is None:
        if lowest >= 0.0 and highest > EIGHT_BIT_WHITE:
            raise UserError(
                f"{source}: holds values up to {highest:g} but none of air, which lies from -1024 to 0 HU; "
                "give what to add to them, as --hu_offset -1024, or --hu_offset 0 if they are HU" + hint
            )
        return 0.0
    try:
        offset = float(hu_offset)
    except (TypeError, ValueError) as error:
        raise UserError(f"hu_offset {hu_offset}: give what to add to stored values, as -1024") from error
    return 0.0 if lowest < 0.0 and lowest + offset < NO_AIR else offset


def to_unit(
    array: np.ndarray, window: Window, is_hu: bool, source_range: tuple[float, float] = (0.0, 255.0)
) -> np.ndarray:
    """Maps raw values to float32 in [0, 1], clipped.

    Args:
        array: raw values, any shape.
        window: used where the values are HU.
        is_hu: whether the values are HU.
        source_range: what is black and white in values that are not HU (8 bits: 0..255). Their HU is then
            nominal: 0 stands for the window's lower end, 1 for its upper end.
    """
    lower, upper = (window.lower, window.upper) if is_hu else source_range
    unit = (np.asarray(array, dtype=np.float32) - np.float32(lower)) * np.float32(1.0 / (upper - lower))
    return np.clip(unit, 0.0, 1.0, out=unit)


def to_network(unit: np.ndarray) -> np.ndarray:
    """[0, 1] to [-1, 1], float32."""
    return np.asarray(unit, dtype=np.float32) * np.float32(2.0) - np.float32(1.0)


def from_network(values: np.ndarray) -> np.ndarray:
    """[-1, 1] to [0, 1], float32, clipped."""
    return np.clip((np.asarray(values, dtype=np.float32) + 1.0) / 2.0, 0.0, 1.0)


def to_hu(unit: np.ndarray, window: Window) -> np.ndarray:
    """[0, 1] to HU within the window, rounded to int16."""
    hu = np.asarray(unit, dtype=np.float64) * window.width + window.lower
    return np.rint(hu).astype(np.int16)

"""Intensities: HU windows, the unit range of files and pictures, the range of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError

EIGHT_BIT_WHITE = 255.0


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

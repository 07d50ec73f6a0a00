"""Whether the images of a set use the range of gray values that a network sees."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np

logger = logging.getLogger(__name__)
IMAGES = 48
"""Images of a set that are looked at, evenly spaced."""
LEAST_RANGE = 0.25
"""Share of [-1, 1] from the darkest to the brightest thousandth of the pixels; real sets use nearly all."""
BRIGHT_BORDER, DARKER = 0.4, 0.6
"""Median border of inverted slices, in [-1, 1], and how much darker the middle of them is."""
INVERTED_SHARE = 0.8
"""Share of images with such a border; of figures cut from publications a fifth has one."""


class Images(Protocol):
    """A dataset whose items hold ``image``, (1, S, S) in [-1, 1]."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def warn_of_gray_values(dataset: Images, where: Path) -> None:
    """Warns, in one line, of a set whose images are nearly one gray, or seem to be inverted.

    Args:
        dataset: a training set, as its network sees it.
        where: the set's folder, for the message.
    """
    places = np.unique(np.linspace(0, len(dataset) - 1, min(IMAGES, len(dataset))).astype(int))
    images = [np.asarray(dataset[int(index)]["image"], np.float32)[0] for index in places]
    if not images:
        return
    darkest, brightest = np.quantile(np.concatenate([image.ravel() for image in images]), (0.001, 0.999))
    if brightest - darkest < 2 * LEAST_RANGE:
        logger.warning(
            f"{where}: its images use {(brightest - darkest) / 2:.0%} of the range from black to white; see "
            "--window for what is black and white in HU, --hu_offset for values that are not HU, "
            "--source_range for pictures"
        )
    elif np.mean([_seems_inverted(image) for image in images]) > INVERTED_SHARE:
        logger.warning(
            f"{where}: its images are white around a dark middle, as if inverted; air is black in a CT: give "
            "--source_range with the two numbers the other way round, or invert the files"
        )


def _seems_inverted(image: np.ndarray) -> bool:
    height, width = image.shape
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    middle = image[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    brighter = float(np.median(border))
    return brighter > BRIGHT_BORDER and float(np.median(middle)) < brighter - DARKER

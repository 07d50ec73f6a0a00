"""Checks in the main process, before training: the first bad file is named in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from common.data.reading import Pixels, read_mask, read_pixels
from common.data.samples import Sample
from common.errors import UserError

T = TypeVar("T")
# After this many bad files the rest is not worth the wait.
MOST_PROBLEMS = 5


class Pair(NamedTuple):
    """A checked slice: gray values (H, W), mask uint8 {0, 1} (H, W); no mask in unconditional sets."""

    pixels: Pixels
    mask: np.ndarray | None


def read_pair(sample: Sample) -> Pair:
    """Reads image and mask, and checks that they fit.

    Raises:
        UserError: anything that `common.data.reading` refuses, or sizes that differ.
    """
    pixels = read_pixels(sample)
    if sample.mask is None:
        return Pair(pixels, None)
    mask = read_mask(sample)
    if mask.shape != pixels.values.shape:
        raise UserError(
            f"{sample.mask}: the mask is {_size(mask)} but {sample.image.name} is {_size(pixels.values)} "
            "(rows x columns); export both at the same size"
        )
    return Pair(pixels, mask)


def for_each(samples: Sequence[Sample], action: Callable[[Sample], T], title: str) -> list[T]:
    """``action`` of every sample, with a progress bar; goes on after a bad file to tell how many there are.

    Raises:
        UserError: the first bad file, with the number of others (it stops counting at five).
    """
    results: list[T] = []
    problems: dict[str, None] = {}
    for sample in tqdm(samples, desc=title, unit="slice", disable=None, leave=False):
        try:
            results.append(action(sample))
        except UserError as error:
            problems[str(error)] = None
            if len(problems) == MOST_PROBLEMS:
                break
    if problems:
        raise UserError(summary_of(list(problems)))
    return results


def summary_of(problems: Sequence[str]) -> str:
    """One line: the first of several problems, and the number of the others."""
    others = len(problems) - 1
    if not others:
        return problems[0]
    least = "at least " if len(problems) == MOST_PROBLEMS else ""
    return f"{problems[0]} ({least}{others} more bad {'file' if others == 1 else 'files'})"


def _size(array: np.ndarray) -> str:
    return " x ".join(str(extent) for extent in array.shape)

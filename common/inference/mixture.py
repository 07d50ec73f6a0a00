"""Samples that are to be generated for an evaluation: what its loader runs over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from common.numbers import whole_number
from common.random import generator


class MixtureSamples(Dataset[dict[str, int]]):
    """Items ``{"sample": k}``, with ``class`` where there are classes, mixed as in a given set of images.

    The noise follows from the number, see `common.inference.preparing.LatentToImage`; so does the class.

    Args:
        count: how many.
        classes: of the images whose mixture is wanted, in any order: they are shuffled, always alike, and
            repeated as often as it takes. None for unconditional nets.
    Raises:
        UserError: ``count`` is no whole number from 1 up.
    """

    def __init__(self, count: int, classes: Sequence[int] | None = None) -> None:
        self.count = whole_number("num_samples", count, least=1)
        self.classes: list[int] | None = None
        if classes is not None:
            self.classes = generator(0, "mixture").permutation(np.asarray(classes)).tolist()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, int]:
        sample = range(self.count)[number]  # beyond the end: IndexError
        if self.classes is None:
            return {"sample": sample}
        return {"sample": sample, "class": self.classes[sample % len(self.classes)]}

    def drawn_classes(self) -> list[int]:
        """The classes of all samples, in order; empty of an unconditional net."""
        return [self[number]["class"] for number in range(self.count)] if self.classes else []

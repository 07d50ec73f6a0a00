"""Samples that are to be generated, by number: what an evaluator's loader runs over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset


class MixtureSamples(Dataset[dict[str, int]]):
    """Items ``{"sample": k}``, with ``class`` where there are classes; the noise follows from the number.

    See `common.inference.preparing.LatentToImage`.

    Args:
        count: how many.
        classes: of the samples in turn, repeated as often as it takes: those of the training images, say,
            for generated images of the same mixture. None for unconditional nets.
        first: number of the first.
    """

    def __init__(self, count: int, classes: Sequence[int] | None = None, first: int = 0) -> None:
        self.numbers = range(first, first + count)
        self.classes = None if classes is None else [int(index) for index in classes]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, int]:
        number = self.numbers[index]
        if self.classes is None:
            return {"sample": number}
        return {"sample": number, "class": self.classes[number % len(self.classes)]}

    def drawn_classes(self) -> torch.Tensor:
        """The classes of all samples (N,) int64.

        Raises:
            ValueError: there are none.
        """
        if self.classes is None:
            raise ValueError("samples without classes")
        return torch.tensor([self[index]["class"] for index in range(len(self))], dtype=torch.int64)

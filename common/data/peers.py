"""Which slice of another patient lies where a slice lies in its own: a partner to mix label maps with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.data.samples import Sample


class Peers:
    """Finds slices of other patients at the same relative height.

    Args:
        samples: slices in order; those of a volume belong together, as do the pictures of a patient.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        stacks: dict[str, list[int]] = {}
        for place, sample in enumerate(samples):
            key = sample.patient if sample.index is None else str(sample.image)
            stacks.setdefault(key, []).append(place)
        self._stacks = list(stacks.values())
        self._units = [samples[stack[0]].unit for stack in self._stacks]
        self._stack_of = {place: n for n, stack in enumerate(self._stacks) for place in stack}

    def draw(self, place: int, random: np.random.Generator) -> int | None:
        """The partner of the slice at ``place``, from a patient drawn among the others; None without others.

        One number is drawn in any case.
        """
        share = float(random.random())
        own = self._stack_of[place]
        others = [
            stack for stack, unit in zip(self._stacks, self._units, strict=True) if unit != self._units[own]
        ]
        if not others:
            return None
        other = others[int(share * len(others))]
        height = (self._stacks[own].index(place) + 0.5) / len(self._stacks[own])
        return other[int(height * len(other))]

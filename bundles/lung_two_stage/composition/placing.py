"""Where the nodules of the groups come to lie in a lung: geometry alone, no image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bundles.lung_two_stage.composition.groups import Groups
from common.random import generator

NOWHERE = -1


@dataclass(frozen=True)
class LungField:
    """The places of a lung, how likely each is, and how deep it lies.

    Args:
        width: of the slice in pixels.
        spacing_mm: side of a pixel.
        pixels: (P,) int32, places in the flattened slice.
        cumulative: (P,) float64, the running sum of their probabilities.
        depths: (P,) float32, mm from the pixel's centre to the edge of the parenchyma.
    """

    width: int
    spacing_mm: float
    pixels: NDArray[np.int32]
    cumulative: NDArray[np.float64]
    depths: NDArray[np.float32]

    @classmethod
    def of(cls, lung: NDArray[np.uint8], presence: NDArray[np.float32], spacing_mm: float) -> LungField:
        """The field of a slice; its border counts as edge.

        Args:
            lung: (H, W), 0 outside; at least one pixel is not.
            presence: (H, W) probability of a nodule's centre.
        """
        depth = np.zeros(lung.shape, np.float32)
        rows, columns = (np.flatnonzero((lung > 0).any(axis=axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        to_outside = distance_transform_edt(np.pad(lung[box] > 0, 1))[1:-1, 1:-1]
        depth[box] = (to_outside - 0.5) * spacing_mm  # the edge runs between the pixels
        pixels = np.flatnonzero((lung > 0) & (presence > 0)).astype(np.int32)
        cumulative = np.cumsum(presence.ravel()[pixels], dtype=np.float64)
        return cls(lung.shape[1], spacing_mm, pixels, cumulative, depth.ravel()[pixels])

    def draw(self, random: NDArray[np.float64]) -> NDArray[np.int64]:
        """Numbers in [0, 1) to places among ``pixels``, by their probability."""
        found = np.searchsorted(self.cumulative, random * self.cumulative[-1], side="right")
        return np.minimum(found, len(self.pixels) - 1)

    def apart_mm(self, first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.float64]:
        """Distances between pixels, mm."""
        rows = first // self.width - second // self.width
        columns = first % self.width - second % self.width
        return np.hypot(rows, columns) * self.spacing_mm


@dataclass(frozen=True)
class Placed:
    """The groups in a lung.

    Args:
        pixels: (G, k) int32, the members' places in the flattened slice; `NOWHERE` where there is none.
        margins: (G,) float32, mm from the group's outermost nodule to the edge of the parenchyma: the least
            of depth - radius; -inf where not all members found a place.
        too_large: (G,) bool, a member is larger than the lung.
    """

    pixels: NDArray[np.int32]
    margins: NDArray[np.float32]
    too_large: NDArray[np.bool_]


def place_groups(
    groups: Groups,
    radii_mm: NDArray[np.float32],
    field: LungField,
    seed: int,
    normal: int,
    attempts: int,
) -> Placed:
    """Gives every member a place drawn from the presence probability: inside the lung, apart from the others.

    A draw depends on seed, normal, member, attempt and the group's number alone, so that a group's places are
    the same in any order and whatever groups follow.

    Args:
        radii_mm: (N,) of all nodules of the bank.
        normal: the slice's number.
        attempts: draws for a member before the group is given up.
    """
    there = groups.members >= 0
    radii = np.where(there, radii_mm[groups.members], 0)  # (G, k)
    pixels = np.full(there.shape, NOWHERE, np.int32)
    margins = np.full(there.shape, np.inf, np.float32)
    too_large = radii.max(axis=1) > field.depths.max()
    possible = ~too_large
    for member in range(there.shape[1]):
        waiting = np.flatnonzero(there[:, member] & possible)
        for attempt in range(attempts):
            if not len(waiting):
                break
            random = generator(seed, "placement", normal, member, attempt).random(len(groups))[waiting]
            spots = field.draw(random)
            slack = field.depths[spots] - radii[waiting, member]
            fits = (slack >= 0) & _apart(field, pixels[waiting], radii[waiting], field.pixels[spots], member)
            pixels[waiting[fits], member] = field.pixels[spots[fits]]
            margins[waiting[fits], member] = slack[fits]
            waiting = waiting[~fits]
        possible[waiting] = False
    return Placed(pixels, np.where(possible, margins.min(axis=1), -np.inf).astype(np.float32), too_large)


def _apart(
    field: LungField,
    pixels: NDArray[np.int32],
    radii: NDArray[np.float32],
    spots: NDArray[np.int32],
    member: int,
) -> NDArray[np.bool_]:
    """Whether ``member`` at ``spots`` touches none of the members placed before it; (g,) for (g, k)."""
    apart = np.ones(len(spots), bool)
    for earlier in range(member):
        apart &= field.apart_mm(pixels[:, earlier], spots) >= radii[:, earlier] + radii[:, member]
    return apart

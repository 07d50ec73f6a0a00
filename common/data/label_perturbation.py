"""Perturbed label maps: other shapes of the same anatomy; parameters are drawn first and applied after.

A label map holds class indices, 0 for background: (H, W), or (D, H, W) for a volume, whose slices change
together. Classes stay exclusive, and borders move by distances or along a smooth field, so that the result is
still an anatomy. Strengths are shares of the side (the larger of H and W), so that they do not depend on the
image size; 0 leaves the map as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from common.data.datasets import SliceDataset, first_of
from common.data.labels import LabelSet
from common.data.loaders import SampleIndex
from common.data.replay import Transforms
from common.data.samples import Sample
from common.data.slice_cache import CachedPair
from common.errors import UserError
from common.rng import make_rng

UNFOLDED = 0.4
"""A cubic B-spline field does not fold if its nodes move less than this share of their spacing.

The bound is 1 / 2.48 in three dimensions and 1 / 2.05 in two (Choi and Lee 2000, Graphical Models 62:411).
"""
FAR = 0.25
"""Largest distance, as a share of the side, also to a structure that one of two patients lacks."""
HALF = 0.5
"""Distance in pixels of a border and the centre of the nearest pixel behind it."""


@dataclass(frozen=True)
class PerturbationDraw:
    """The parameters of one perturbed map.

    Attributes:
        weight: weight of the other patient's map, 0 to 1.
        growth: pixels by which each class (background first) outgrows its neighbours.
        nodes: displacements in pixels of the nodes of a B-spline lattice, (2, Z, Y, X): rows, then columns.
        spacing: distance of two nodes in pixels.
        aspect: distance of two slices in pixels.
    """

    weight: float
    growth: tuple[float, ...]
    nodes: np.ndarray
    spacing: float
    aspect: float = 1.0


@dataclass(frozen=True)
class Perturbation:
    """The ranges of random perturbations.

    Args:
        elastic: largest displacement of a node of the elastic deformation in the slice, as a share of the
            side; it changes smoothly from slice to slice.
        spacing: distance of two nodes, as a share of the side.
        growth: most that a class grows or shrinks (dilation, erosion), as a share of the side.
        mix: largest weight of another patient's map, 0 to 1.
    Raises:
        UserError: a strength out of range, or an elastic deformation that could fold.

    Example:
        >>> label = np.zeros((16, 16), np.uint8)
        >>> label[4:12, 4:12] = 1
        >>> draw = Perturbation(growth=0.1).draw(np.random.default_rng(0), label.shape, classes=1)
        >>> perturb_map(label, draw).shape
        (16, 16)
    """

    elastic: float = 0.03
    spacing: float = 0.15
    growth: float = 0.008
    mix: float = 0.0

    def __post_init__(self) -> None:
        if min(self.elastic, self.growth, self.mix) < 0 or self.mix > 1 or self.spacing <= 0:
            raise UserError(f"{self}: strengths start at 0, mix ends at 1, spacing is above 0")
        if self.elastic > UNFOLDED * self.spacing:
            raise UserError(
                f"perturbation: elastic {self.elastic} would fold the map; give at most {UNFOLDED} times "
                f"spacing, {UNFOLDED * self.spacing:g}, or a larger spacing"
            )

    def draw(
        self, random: np.random.Generator, shape: Sequence[int], classes: int, aspect: float = 1.0
    ) -> PerturbationDraw:
        """Draws the parameters for a map; the number of random numbers does not depend on the strengths.

        Args:
            shape: shape of the map, (H, W) or (D, H, W).
            classes: number of classes without background.
            aspect: distance of two slices over the size of a pixel.
        """
        side = max(shape[-2:])
        spacing = self.spacing * side
        depth = shape[0] * aspect if len(shape) == 3 else 0.0
        counts = [_node_count(extent, spacing) if extent else 1 for extent in (depth, *shape[-2:])]
        weight, growth = random.random(), random.uniform(-1.0, 1.0, classes)
        nodes = random.uniform(-1.0, 1.0, (2, *counts))
        return PerturbationDraw(
            weight=float(self.mix * weight),
            growth=(0.0, *(float(value) for value in self.growth * side * growth)),
            nodes=(self.elastic * side * nodes).astype(np.float32),
            spacing=spacing,
            aspect=aspect,
        )


def perturb_map(label: np.ndarray, draw: PerturbationDraw, partner: np.ndarray | None = None) -> np.ndarray:
    """Applies a perturbation: mixes with ``partner`` (if given), grows and shrinks classes, then deforms.

    Args:
        label: class indices, (H, W) or (D, H, W), of any dtype; the result has its dtype and shape.
        partner: map of another patient with as many dimensions; its foreground is moved onto this one.
    """
    if partner is not None and draw.weight > 0:
        label = mixed(label, aligned(partner, label), draw.weight, draw.aspect)
    return deformed(grown(label, draw.growth, draw.aspect), draw.nodes, draw.spacing, draw.aspect)


def mixed(label: np.ndarray, partner: np.ndarray, weight: float, aspect: float = 1.0) -> np.ndarray:
    """Interpolates two maps: borders move by ``weight`` of the way to those of the partner.

    Shape-based averaging (Rohlfing and Maurer 2007, IEEE TIP 16:153) by unsigned distances: each pixel gets
    the class with the smallest weighted distance. A map mixed with itself does not change.
    """
    present = np.union1d(np.unique(label), np.unique(partner))
    far = FAR * max(label.shape[-2:])
    box = _box((label > 0) | (partner > 0), 1)
    first, second = label[box], partner[box]
    scores = np.stack(
        [
            (1 - weight) * _distance(first == k, far, aspect) + weight * _distance(second == k, far, aspect)
            for k in present
        ]
    )
    result = label.copy()
    result[box] = present[np.argmin(scores, axis=0)]
    return result


def grown(label: np.ndarray, growth: Sequence[float], aspect: float = 1.0) -> np.ndarray:
    """Moves the border between classes a and b by ``growth[a] - growth[b]`` pixels into b.

    A class takes a pixel of another one within that distance; of several classes the one that reaches
    farthest.
    """
    amounts = np.asarray(growth, np.float32)
    if not amounts.any():
        return label
    lead = np.zeros(label.shape, np.float32)
    result = label.copy()
    reach = float(np.ptp(amounts)) + 1.0
    foreground = label > 0
    for value in np.unique(label):
        box = _box(label == value if value else foreground, reach)
        here = label[box]
        own = amounts[value] - amounts[here] - _distance(here == value, reach, aspect)
        better = (own > lead[box]) & (here != value)
        result[box] = np.where(better, value, result[box])
        lead[box] = np.where(better, own, lead[box])
    return result


def deformed(label: np.ndarray, nodes: np.ndarray, spacing: float, aspect: float = 1.0) -> np.ndarray:
    """Deforms the map by the B-spline field of ``nodes`` (2, Z, Y, X), nearest neighbour."""
    if not nodes.any():
        return label
    stack = label.reshape(-1, *label.shape[-2:])  # (D, H, W)
    depth, height, width = stack.shape
    along = (
        _weights(depth, nodes.shape[1], spacing / aspect) if label.ndim == 3 else np.ones((1, 1), np.float32)
    )
    field = np.einsum("zk,cklm->czlm", along, nodes)  # (2, D, Y, X)
    field = _weights(height, nodes.shape[2], spacing) @ field @ _weights(width, nodes.shape[3], spacing).T
    rows = np.rint(np.arange(height)[:, None] + field[0]).astype(np.intp).clip(0, height - 1)  # (D, H, W)
    columns = np.rint(np.arange(width) + field[1]).astype(np.intp).clip(0, width - 1)
    return stack[np.arange(depth)[:, None, None], rows, columns].reshape(label.shape)


def aligned(partner: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Moves and scales the partner's map so that its foreground has centre and extent of that of ``label``.

    Returns ``label`` itself if one of the two is empty.
    """
    if not label.any() or not partner.any():
        return label
    indices = []
    for size, n, ours, theirs in zip(
        label.shape, partner.shape, _moments(label), _moments(partner), strict=True
    ):
        position = theirs[0] + (np.arange(size) - ours[0]) * (theirs[1] / ours[1])
        indices.append(np.clip(np.rint(position).astype(np.intp) + 1, 0, n + 1))
    return np.pad(partner, 1)[np.ix_(*indices)].astype(label.dtype)


def _moments(label: np.ndarray) -> list[tuple[float, float]]:
    """Returns mean and standard deviation of the foreground's coordinates along each axis."""
    return [(float(c.mean()), max(float(c.std()), 0.5)) for c in np.nonzero(label)]


def _distance(region: np.ndarray, far: float, aspect: float) -> np.ndarray:
    """Returns the distance in pixels to the border of ``region``, 0 within it, at most ``far``; float32."""
    if not region.any():
        return np.full(region.shape, far, np.float32)
    sampling = (aspect, 1.0, 1.0)[-region.ndim :]
    centres = distance_transform_edt(~region, sampling=sampling)
    return np.clip(centres - HALF, 0.0, far).astype(np.float32)


def _box(region: np.ndarray, margin: float) -> tuple[slice, ...]:
    """Returns the bounding box of ``region`` with a margin of ``margin`` pixels."""
    parts = []
    for axis, n in enumerate(region.shape):
        others = tuple(other for other in range(region.ndim) if other != axis)
        held = np.flatnonzero(region.any(axis=others))
        ends = (held[0] - margin, held[-1] + margin + 1) if len(held) else (0, 0)
        parts.append(slice(max(0, int(np.floor(ends[0]))), min(n, int(np.ceil(ends[1])))))
    return tuple(parts)


def _node_count(extent: float, spacing: float) -> int:
    return int(np.ceil(extent / spacing)) + 3


@lru_cache(maxsize=32)
def _weights(size: int, count: int, spacing: float) -> np.ndarray:
    """Returns cubic B-spline weights (size, count) of the nodes at each pixel; node 1 lies at pixel 0."""
    position = np.arange(size)[:, None] / spacing + 1.0
    distance = np.abs(position - np.arange(count))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)


class PartnerSampler:
    """Draws slices of other patients at the same relative height.

    Args:
        samples: slices in order; those of a volume belong together, and so do the pictures of a patient.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        stacks: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            key = sample.patient if sample.index is None else str(sample.image)
            stacks.setdefault(key, []).append(index)
        self._stacks = list(stacks.values())
        self._units = [samples[stack[0]].unit for stack in self._stacks]
        self._stack_of = {index: n for n, stack in enumerate(self._stacks) for index in stack}

    def draw(self, index: int, random: np.random.Generator) -> int | None:
        """Draws the partner of slice ``index`` from another patient; None if there is no other.

        One random number is drawn in any case.
        """
        share = float(random.random())
        own = self._stack_of[index]
        others = [
            stack for stack, unit in zip(self._stacks, self._units, strict=True) if unit != self._units[own]
        ]
        if not others:
            return None
        other = others[int(share * len(others))]
        height = (self._stacks[own].index(index) + 0.5) / len(self._stacks[own])
        return other[int(height * len(other))]


class PerturbedSliceDataset(SliceDataset):
    """A `SliceDataset` with perturbed ``label``; items have the true map as ``annotation``.

    A `SampleIndex` has a random perturbation; an int index always the same one, which belongs to the slice.

    Args:
        perturb: the strengths.
        coarse: probability that chambers and myocardium of the perturbed label are then merged into the
            class ``whole_heart``; they are not in the annotation.
    Raises:
        UserError: the condition is an image, or ``coarse`` without class ``whole_heart``.
    """

    def __init__(
        self,
        pairs: Sequence[CachedPair],
        label_set: LabelSet | None,
        min_pixels: int = 1,
        every: int = 1,
        augmentation: Transforms = None,
        seed: int = 0,
        coarse: float = 0.0,
        preprocessing: Transforms = None,
        perturb: Perturbation | None = None,
    ) -> None:
        if label_set is None:
            raise UserError("perturb needs labels as condition; leave it out where the condition is an image")
        super().__init__(pairs, label_set, min_pixels, every, augmentation, seed, coarse, preprocessing)
        self.perturb = perturb or Perturbation()
        self.classes = len(label_set.classes)
        self._classes_merged = label_set.merged() if coarse > 0 else None
        self._share_merged, self.coarse = self.coarse, 0.0  # merged here, after the perturbation
        self._partners = PartnerSampler(self.samples)

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        return first_of(self.__getitems__([visit]))

    def __getitems__(self, visits: Sequence[SampleIndex | int]) -> dict[str, Any]:
        """Returns a batch of `SliceDataset` with ``annotation`` float32 (B, 1, S, S), class indices."""
        batch = super().__getitems__(visits)
        labels = [
            self._perturbed(visit, map_) for visit, map_ in zip(visits, batch["label"][:, 0], strict=True)
        ]
        return {**batch, "label": torch.from_numpy(np.stack(labels)[:, None]), "annotation": batch["label"]}

    @property
    def labels(self) -> np.ndarray:
        """All perturbed labels, float32 (N, 1, S, S), each with its slice's own perturbation."""
        return np.stack([self[index]["label"].numpy() for index in range(len(self))])

    @property
    def annotations(self) -> np.ndarray:
        """All true labels, float32 (N, 1, S, S)."""
        return super().labels

    def spread(self, count: int) -> PerturbedSliceDataset:
        """Returns a dataset of ``count`` slices spread evenly over these (all if there are fewer)."""
        part = super().spread(count)
        assert isinstance(part, PerturbedSliceDataset)  # a copy of this one
        part._partners = PartnerSampler(part.samples)
        return part

    def _perturbed(self, visit: SampleIndex | int, label: torch.Tensor) -> np.ndarray:
        """Returns the perturbed label, float32 (S, S)."""
        index, random = self._random(visit)
        draw = self.perturb.draw(random, (self.size, self.size), self.classes)
        partner = self._partners.draw(index, random)
        other = self._class_map(partner) if partner is not None and draw.weight > 0 else None
        result = perturb_map(label.numpy().astype(np.uint8), draw, other)
        if (
            isinstance(visit, SampleIndex)
            and self._classes_merged is not None
            and random.random() < self._share_merged
        ):
            result = self._classes_merged[result]
        return result.astype(np.float32)

    def _random(self, visit: SampleIndex | int) -> tuple[int, np.random.Generator]:
        if isinstance(visit, SampleIndex):
            return visit.index, make_rng(self.seed, "perturbation", visit.epoch, visit.index)
        return int(visit), make_rng(0, "perturbation", self.samples[int(visit)].name)

    def _class_map(self, index: int) -> np.ndarray:
        label = np.empty((self.size, self.size), np.float32)
        self._read_label(index, label)
        return label.astype(np.uint8)


def make_perturbation(settings: Perturbation | Mapping[str, float] | None) -> Perturbation | None:
    """Returns the `Perturbation` of the settings in a config."""
    return Perturbation(**settings) if isinstance(settings, Mapping) else settings

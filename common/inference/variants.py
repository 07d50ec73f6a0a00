"""Perturbed versions of label files: new anatomies for a trained generator, cut as in its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.beside import without_ending
from common.data.patients import patient_of
from common.data.peers import Peers
from common.data.perturb import Perturbation, PerturbationDraw, perturbed
from common.data.perturbed_slices import perturbation
from common.data.samples import Sample, stem
from common.data.store.planes import plane_spacing, planes_shape
from common.data.store.reading import SliceReader
from common.data.store.volume import StoredVolume
from common.errors import UserError
from common.inference.labels import Converted, LabelSlices, place_in
from common.random import generator


@dataclass(frozen=True)
class Variant:
    """One perturbed version of a file.

    Attributes:
        name: of what is made from it, without suffix; no two are alike.
        file: the label it starts from.
        draw: the parameters of the perturbation.
        partner: the file of another patient that is mixed in; None where there is none.
    """

    name: str
    file: Converted
    draw: PerturbationDraw
    partner: Converted | None


class LabelVariants(Dataset[dict[str, Any]]):
    """One item a slice: ``label`` float32 (1, S, S), class indices 0..K, and its place ``sample``.

    A volume is perturbed as a whole, so that its slices go on fitting each other. What a variant looks like
    depends on ``seed``, the file's name and the variant's number, and through its partner on the other files.

    Args:
        originals: the label files.
        perturb: the strengths: a dict of `Perturbation` settings or the object.
        variants: how many of each file.
        seed: of all that is drawn.

    Attributes:
        classes: the model's structures.
        variants: all of them, in order.
        files: each variant's positions, by a path that is its name.
    Raises:
        UserError: no variants asked for, or the model's condition is an image.
    """

    def __init__(
        self,
        originals: LabelSlices,
        perturb: Perturbation | Mapping[str, float] | None = None,
        variants: int = 1,
        seed: int = 0,
    ) -> None:
        if not originals.classes:
            raise UserError("variants are perturbed label maps; the condition of this model is an image")
        if variants < 1:
            raise UserError(f"variants {variants}: give how many of each label file, at least 1")
        self.classes, self.size, self.seed = originals.classes, originals.size, seed
        self.perturb = perturbation(perturb) or Perturbation()
        self._originals, self._converted = originals, originals.converted
        self._peers = Peers([_record(file) for file in self._converted])
        self.variants = [
            self._drawn(place, number)
            for place in range(len(self._converted))
            for number in range(1, variants + 1)
        ]
        self.files: dict[Path, list[int]] = {}
        self._places: list[tuple[int, int]] = []  # number of the variant, slice in it
        for number, variant in enumerate(self.variants):
            start = len(self._places)
            self._places += [(number, index) for index in range(variant.file.condition.depth)]
            self.files[Path(variant.name)] = list(range(start, len(self._places)))
        self._reader = SliceReader()
        self._made: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        label = self.condition(position).astype(np.float32)
        number, index = self._places[position]
        variant = self.variants[number]
        place = place_in(variant.file.condition, index, variant.name)
        return {"label": torch.from_numpy(label[None]), "sample": position, **place}  # (1, S, S)

    def condition(self, position: int) -> np.ndarray:
        """The perturbed slice at ``position``, uint8 (S, S)."""
        number, index = self._places[position]
        if self._made[0] != number:
            self._made = number, self._perturbed(self.variants[number])
        return np.asarray(self._made[1][index])

    def original(self, file: Converted) -> np.ndarray:
        """A file's own class map, uint8 (N, S, S)."""
        stack = np.empty((file.condition.depth, self.size, self.size), np.uint8)
        for index, plane in enumerate(stack):
            plane[:] = np.asarray(file.table)[self._reader.label(file.condition, index)]
        return stack

    def _drawn(self, place: int, number: int) -> Variant:
        file = self._converted[place]
        name = without_ending(stem(file.path))
        random = generator(self.seed, "variant", name, number)
        draw = self.perturb.draw(random, self._shape(file), len(self.classes), aspect(file.condition))
        partner = self._peers.draw(place, random)
        other = None if partner is None or draw.weight == 0 else self._converted[partner]
        alike = other is not None and (other.condition.depth > 1) == (file.condition.depth > 1)
        return Variant(f"{name}_variant{number:02d}", file, draw, other if alike else None)

    def _shape(self, file: Converted) -> tuple[int, ...]:
        square = (self.size, self.size)
        return (file.condition.depth, *square) if file.condition.depth > 1 else square

    def _perturbed(self, variant: Variant) -> np.ndarray:
        """The class map (N, S, S) of a variant; a single slice is perturbed in its plane."""
        stack = self.original(variant.file)
        other = None if variant.partner is None else self.original(variant.partner)
        if len(stack) > 1:
            return perturbed(stack, variant.draw, other)
        return perturbed(stack[0], variant.draw, None if other is None else other[0])[None]


def aspect(volume: StoredVolume) -> float:
    """The distance of two stored slices in pixels of theirs."""
    if volume.geometry.spacing is not None:
        return volume.slice_mm / volume.geometry.spacing
    extents = planes_shape(volume.shape, volume.geometry.axis)[1:]
    mm = plane_spacing(volume.spacing, volume.geometry.axis)
    sides = [extent * pixel for extent, pixel in zip(extents, mm, strict=True)]
    mean_side = {"stretch": float(np.mean(sides)), "pad": max(sides), "crop": min(sides)}[volume.geometry.fit]
    return volume.slice_mm * volume.geometry.size / mean_side


def _record(file: Converted) -> Sample:
    path = file.path
    return Sample(path, None, patient_of(path, None, without_ending(stem(path))))

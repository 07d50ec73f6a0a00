"""Renders a composite from its number: image, mask and record, in any order and in any process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.patches import (
    MIN_LUNG_PIXELS,
    SOFT_TISSUE,
    NodulePatch,
    high_pass,
    make_noise,
    make_patch,
    measure_lung,
)
from bundles.lung_two_stage.composition.plan import FLIP_ROTS, Groups, NoduleGeometry
from bundles.lung_two_stage.composition.shards import Composite, FileFormat, Member, made_by
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.rng import make_rng

STRETCH = (0.5, 2.0)
"""Bounds of the factor by which contrast is matched."""
LEAST_GRAIN = 0.5
"""Least share of a nodule's own grain that is kept, however smooth the slice."""
RANGE = (-1024, 3071)
"""HU of a 12-bit scanner."""
DENSER = 50.0
"""HU: where the slice is denser than the patch by more than this it stays in part, by twice this fully."""
OVER_NOISE = 2.5
"""The same in standard deviations of the noise, where that is more."""
CACHED_PATCHES = 4096
"""Some 30 MB."""


def blend(
    image: NDArray[np.int16],
    lung: NDArray[np.uint8],
    patch: NodulePatch,
    position: tuple[int, int],
    random: np.random.Generator,
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Blends a nodule into a slice, in place; only pixels with alpha above 0 change.

    The nodule and its blurred rim replace the slice (a smaller weight would take the lung's share of the rim
    twice). Vessels and walls of the slice that are denser than what would cover them stay.

    Args:
        image: (H, W) HU, changed.
        lung: (H, W), 0 outside, where nothing changes.
        patch: at the slice's pixel size.
        position: row and column of the nodule's centre.
        random: draws the noise.
    Returns:
        The box that the patch covers, and the nodule's mask (bool) in it.
    """
    box, part = _overlap(image.shape, patch.hu.shape[0], position)
    under, inside = image[box].astype(np.float32), lung[box] > 0
    grain, alpha = high_pass(under), patch.alpha[part] * inside
    level, noise = _surroundings(under, grain, inside, alpha, patch.background)
    values, own = match_contrast(patch.hu[part], patch.grain[part], patch, level, noise)
    alpha = alpha * (1 - weight_of_denser(under - grain, values - high_pass(values), level, max(noise, own)))
    added = missing_noise(alpha, noise, own) * make_noise(random, patch.hu.shape[0])[part]
    mixed = under + alpha * (values - under) + added
    np.copyto(image[box], np.rint(mixed.clip(*RANGE)).astype(np.int16), where=alpha > 0)
    return box, patch.inside[part] & inside


def _overlap(
    shape: tuple[int, ...], side: int, position: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The box of a square patch in a slice of ``shape``, and the part of the patch that lies in it."""
    starts = [middle - side // 2 for middle in position]
    box = [
        slice(max(start, 0), min(start + side, extent)) for start, extent in zip(starts, shape, strict=True)
    ]
    part = [slice(b.start - start, b.stop - start) for b, start in zip(box, starts, strict=True)]
    return (box[0], box[1]), (part[0], part[1])


def _surroundings(
    under: NDArray[np.float32],
    grain: NDArray[np.float32],
    inside: NDArray[np.bool_],
    alpha: NDArray[np.float32],
    otherwise: float,
) -> tuple[float, float]:
    """Level and noise of the lung around the nodule in HU, or under it where too little is around it.

    Args:
        under, grain: the slice in the box, and its grain.
        inside: where that is lung.
        alpha: of the nodule.
        otherwise: the level where there is too little lung to measure.
    """
    measured = measure_lung(under, grain, inside & (alpha == 0)) or measure_lung(under, grain, inside)
    if measured is not None:
        return measured
    return (float(np.median(under[inside])) if inside.sum() >= MIN_LUNG_PIXELS else otherwise), 0.0


def match_contrast(
    hu: NDArray[np.float32], grain: NDArray[np.float32], patch: NodulePatch, level: float, noise: float
) -> tuple[NDArray[np.float32], float]:
    """The nodule as it would look in the slice's lung, and the standard deviation of its noise then.

    A pixel is a mixture of soft tissue and lung. Its own lung is replaced by that of the slice (``level``):
    solid parts keep their HU, and ground glass gets lighter or darker with the lung. Grain that is then
    stronger than the slice's is reduced.
    """
    background = min(patch.background, SOFT_TISSUE - 100)
    stretch = float(np.clip((SOFT_TISSUE - level) / (SOFT_TISSUE - background), *STRETCH))
    own = stretch * patch.noise
    kept = float(np.clip(noise / own, LEAST_GRAIN, 1)) if own > 0 else 1.0
    values = hu - np.float32(1 - kept) * grain if kept < 1 else hu
    return np.float32(SOFT_TISSUE) + np.float32(stretch) * (values - np.float32(SOFT_TISSUE)), own * kept


def weight_of_denser(
    under: NDArray[np.float32], values: NDArray[np.float32], level: float, noise: float
) -> NDArray[np.float32]:
    """Weight in [0, 1] of the slice where it is denser than the patch, less the opacity of the patch squared.

    Vessels and walls run up to the nodule; through soft tissue nothing shows, however dense.

    Args:
        under, values: (h, w) HU of slice and patch, smoothed.
        level, noise: HU of the lung, and the standard deviation of the stronger noise.
    """
    least = np.float32(max(DENSER, OVER_NOISE * noise))
    opacity = ((values - np.float32(level)) / np.float32(max(SOFT_TISSUE - level, 100.0))).clip(0, 1)
    return (1 - opacity**2) * ((under - values) / least - 1).clip(0, 1)


def missing_noise(alpha: NDArray[np.float32], noise: float, own: float) -> NDArray[np.float32]:
    """Standard deviation of the noise that a mixture lacks at each pixel.

    Mixing leaves the variance (1 - a)^2 noise^2 + a^2 own^2; noise^2 is wanted.

    Args:
        alpha: weight a of the patch.
        noise, own: standard deviations of the noise in the slice and in the patch.
    """
    lacking = alpha * (2 - alpha) * np.float32(noise**2) - alpha**2 * np.float32(own**2)
    return np.sqrt(np.maximum(lacking, 0))


class Renderer:
    """Renders the composites of a plan. Its memory does not grow with their number.

    Args:
        nodules, healthy_slices: the banks of the plan.
        groups: the plan's.
        geometry: of ``nodules``.
        plan: see `bundles.lung_two_stage.composition.plan.make_plan`.
        seed: of the noise.
        categories: see `category_order`.
    """

    def __init__(
        self,
        nodules: NoduleBank,
        healthy_slices: SliceBank,
        groups: Groups,
        geometry: NoduleGeometry,
        plan: np.ndarray,
        seed: int,
        categories: Sequence[str] = (),
    ) -> None:
        self.nodules, self.healthy_slices, self.groups, self.geometry = (
            nodules,
            healthy_slices,
            groups,
            geometry,
        )
        self.plan, self.seed = np.asarray(plan), seed  # items of a memory map are slow to get
        self.categories = category_order(nodules, categories)
        self._patch = lru_cache(maxsize=CACHED_PATCHES)(self._make_patch)

    def composite(self, number: int) -> Composite:
        """Renders composite ``number`` of the plan."""
        index = int(self.plan["index"][number])
        source, slices = index // len(self.groups), self.healthy_slices
        image, lung = np.array(slices.hu[source]), np.asarray(slices.lung[source])
        mask = np.zeros(image.shape, np.uint8)
        random = make_rng(self.seed, "noise", index)
        spacing = slices.records[source].spacing_mm
        for nodule, flip_rot, position in self._members(number):
            patch = self._patch(nodule, spacing).flip_rot(ORIENTATIONS[flip_rot])
            box, inside = blend(image, lung, patch, position, random)
            category = self.nodules.records[nodule].category
            mask[box][inside] = self.categories.index(category) + 1 if category else 1
        return Composite(image, mask, self.record(number))

    def record(self, number: int) -> dict[str, Any]:
        """What composite ``number`` is made of, as plain JSON: enough to make it again.

        ``synthetic``, ``bundle``, ``version``: what made it. ``composite``: its number. ``index``: slice x
        groups + group. ``distance_mm``: from the outermost nodule to the edge of the parenchyma. ``normal``
        and ``nodules``: names in their banks, and patients. For a nodule, ``row`` and ``column``: its centre.
        ``turn``: its flip or rotation. ``diameter_mm``: what a reader would measure in the image at half of
        the contrast. ``mask_diameter_mm``: of the disc with the mask's area (readers of LIDC-IDRI draw on the
        outside).
        """
        entry = self.plan[number]
        source, group = divmod(int(entry["index"]), len(self.groups))
        lung = self.healthy_slices.records[source]
        return {
            **made_by().marks,
            "composite": number,
            "index": int(entry["index"]),
            "seed": self.seed,
            "distance_mm": round(float(entry["margin"]), 3),
            "spacing_mm": lung.spacing_mm,
            "group": group,
            "normal": {"name": lung.name, "patient": lung.patient, "origin": lung.origin},
            "nominal_hu": lung.nominal_hu,
            "nodules": [
                self._nodule_record(nodule, flip_rot, position, lung.spacing_mm)
                for nodule, flip_rot, position in self._members(number)
            ],
        }

    def member(self, number: int, file_format: FileFormat) -> Member:
        """Composite ``number`` as the files of a shard."""
        image, mask, record = self.composite(number)
        files = {
            f"image.{file_format.suffix}": file_format.encode_image(image, record["spacing_mm"]),
            f"mask.{file_format.suffix}": file_format.encode_mask(mask, record["spacing_mm"]),
            "json": json.dumps(record, separators=(",", ":")).encode(),
        }
        return Member(number, files)

    def _members(self, number: int) -> list[tuple[int, str, tuple[int, int]]]:
        """Nodule, flip or rotation, and position of each member of the composite's group."""
        group = int(self.plan["index"][number]) % len(self.groups)
        width = self.healthy_slices.hu.shape[2]
        lists = (self.groups.members[group], self.groups.flip_rots[group], self.plan["pixels"][number])
        members = zip(*(values.tolist() for values in lists), strict=True)
        return [
            (nodule, FLIP_ROTS[flip_rot], divmod(pixel, width))
            for nodule, flip_rot, pixel in members
            if nodule >= 0
        ]

    def _nodule_record(
        self, nodule: int, flip_rot: str, position: tuple[int, int], spacing_mm: float
    ) -> dict[str, Any]:
        source = self.nodules.records[nodule]
        return {
            "name": source.name,
            "patient": source.patient,
            "origin": source.origin,
            "category": source.category,
            "diameter_mm": round(self._patch(nodule, spacing_mm).outline.diameter_mm, 2),
            "mask_diameter_mm": source.diameter_mm,
            "row": position[0],
            "column": position[1],
            "turn": flip_rot,
        }

    def _make_patch(self, nodule: int, spacing_mm: float) -> NodulePatch:
        centre, own = self.geometry.centres[nodule], self.nodules.records[nodule].spacing_mm
        return make_patch(self.nodules.hu[nodule], self.nodules.alpha[nodule], centre, own, spacing_mm)


def category_order(nodules: NoduleBank, known: Sequence[str] = ()) -> list[str]:
    """The names of a bank's categories; mask value k + 1 stands for category k.

    Args:
        nodules: the bank.
        known: the names in the order of the mask values; without any the bank's own, in alphabetical order.
    Raises:
        UserError: a nodule's category is not among ``known``.
    """
    if not known:
        return sorted({record.category for record in nodules.records} - {""})
    for record in nodules.records:
        if record.category and record.category not in known:
            raise UserError(
                f"nodule {record.name}: category {record.category!r} is none of {', '.join(known)}"
            )
    return list(known)

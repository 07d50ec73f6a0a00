"""A composite from its number: slice, mask and where they come from. In any order, in any process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.patches import (
    FEWEST,
    SOFT_TISSUE,
    Stamp,
    grain_of,
    lung_of,
    make_noise,
    make_stamp,
)
from bundles.lung_two_stage.composition.plan import TURNS, Groups, Outlines
from bundles.lung_two_stage.composition.settings import Format, made_by
from bundles.lung_two_stage.composition.shards import Composite, Member
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.rng import make_rng

STRETCH = (0.5, 2.0)
"""Bounds of what matching may do to contrast."""
CALMEST = 0.5
"""Least share of a nodule's own grain that is kept, however calm the slice."""
RANGE = (-1024, 3071)
"""HU of a 12-bit scanner."""
DENSER = 50.0
"""HU: what of the slice is denser than the nodule's rim by more than this stays, all of it at twice that."""
OVER_NOISE = 2.5
"""The same in standard deviations of the noise, where that is more."""


def blend(
    image: NDArray[np.int16],
    lung: NDArray[np.uint8],
    stamp: Stamp,
    place: tuple[int, int],
    random: np.random.Generator,
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Lays a nodule on a slice, in place; only pixels with alpha above 0 change.

    The nodule and the zone around it, where pixels hold some of it, come as they are in the crop: to weigh
    them with anything less than 1 would take the lung's share of the rim twice. Vessels and walls of the
    slice that are denser than what would cover them stay.

    Args:
        image: (H, W) HU, changed.
        lung: (H, W), 0 outside: there nothing is laid.
        place: row and column of the nodule's middle.
        random: draws the noise.
    Returns:
        The box that the stamp covers, and the nodule's mask (bool) in it.
    """
    box, part = overlap(image.shape, stamp.hu.shape[0], place)
    under, inside = image[box].astype(np.float32), lung[box] > 0
    grain, alpha = grain_of(under), stamp.alpha[part] * inside
    level, noise = surroundings(under, grain, inside, alpha, stamp.background)
    values, own = matched(stamp.hu[part], stamp.grain[part], stamp, level, noise)
    alpha = alpha * (1 - denser(under - grain, values - grain_of(values), level, max(noise, own)))
    added = missing_noise(alpha, noise, own) * make_noise(random, stamp.hu.shape[0])[part]
    mixed = under + alpha * (values - under) + added
    np.copyto(image[box], np.rint(mixed.clip(*RANGE)).astype(np.int16), where=alpha > 0)
    return box, stamp.inside[part] & inside


def overlap(
    shape: tuple[int, ...], side: int, place: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a square stamp lies in a slice of ``shape``, and the part of the stamp that does."""
    starts = [middle - side // 2 for middle in place]
    box = [
        slice(max(start, 0), min(start + side, extent)) for start, extent in zip(starts, shape, strict=True)
    ]
    part = [slice(b.start - start, b.stop - start) for b, start in zip(box, starts, strict=True)]
    return (box[0], box[1]), (part[0], part[1])


def surroundings(
    under: NDArray[np.float32],
    grain: NDArray[np.float32],
    inside: NDArray[np.bool_],
    alpha: NDArray[np.float32],
    otherwise: float,
) -> tuple[float, float]:
    """Level and noise of the lung at a place, HU: beside the nodule, or under it where beside is hardly any.

    Args:
        under, grain: the slice there, and its finest texture.
        inside: where that is lung.
        alpha: of the nodule.
        otherwise: the level where there is hardly any lung.
    """
    found = lung_of(under, grain, inside & (alpha == 0)) or lung_of(under, grain, inside)
    if found is not None:
        return found
    return (float(np.median(under[inside])) if inside.sum() >= FEWEST else otherwise), 0.0


def matched(
    hu: NDArray[np.float32], grain: NDArray[np.float32], stamp: Stamp, level: float, noise: float
) -> tuple[NDArray[np.float32], float]:
    """The nodule as it would look in the slice's lung, and the standard deviation of its noise then.

    A nodule's pixel is a mixture of soft tissue and lung: its own lung is replaced by that of the place
    (``level``), so that solid parts keep their HU and ground glass gets lighter or darker with the lung.
    Grain that is then stronger than the slice's is calmed.
    """
    background = min(stamp.background, SOFT_TISSUE - 100)
    stretch = float(np.clip((SOFT_TISSUE - level) / (SOFT_TISSUE - background), *STRETCH))
    own = stretch * stamp.noise
    calm = float(np.clip(noise / own, CALMEST, 1)) if own > 0 else 1.0
    values = hu - np.float32(1 - calm) * grain if calm < 1 else hu
    return np.float32(SOFT_TISSUE) + np.float32(stretch) * (values - np.float32(SOFT_TISSUE)), own * calm


def denser(
    under: NDArray[np.float32], values: NDArray[np.float32], level: float, noise: float
) -> NDArray[np.float32]:
    """How much of the slice stays, 0 to 1: where it is denser than what is laid on it.

    So vessels and walls run up to the nodule; through soft tissue nothing shows, however dense.

    Args:
        under, values: (h, w) HU of slice and nodule, smoothed.
        level, noise: HU of the lung, and the standard deviation of the noise of either.
    """
    least = np.float32(max(DENSER, OVER_NOISE * noise))
    opacity = ((values - np.float32(level)) / np.float32(max(SOFT_TISSUE - level, 100.0))).clip(0, 1)
    return (1 - opacity**2) * ((under - values) / least - 1).clip(0, 1)


def missing_noise(alpha: NDArray[np.float32], noise: float, own: float) -> NDArray[np.float32]:
    """Standard deviation, per pixel, of the noise that a mixture lacks beside the slice's own.

    Mixing leaves the variance (1 - a)^2 noise^2 + a^2 own^2, and noise^2 is wanted.

    Args:
        own: of the nodule as it is mixed: resampled, stretched and calmed.
    """
    lacking = alpha * (2 - alpha) * np.float32(noise**2) - alpha**2 * np.float32(own**2)
    return np.sqrt(np.maximum(lacking, 0))


STAMPS = 4096
"""Nodules kept at a slice's pixel size: some 30 MB."""


class Renderer:
    """Renders composites of a plan; what it holds does not grow with their number.

    Args:
        nodules, healthy_slices: the banks of the plan.
        groups: the plan's.
        outlines: of ``nodules``.
        plan: see `bundles.lung_two_stage.composition.plan.make_plan`.
        seed: of the noise.
        categories: see `categories_of`.
    """

    def __init__(
        self,
        nodules: NoduleBank,
        healthy_slices: SliceBank,
        groups: Groups,
        outlines: Outlines,
        plan: np.ndarray,
        seed: int,
        categories: Sequence[str] = (),
    ) -> None:
        self.nodules, self.healthy_slices, self.groups, self.outlines = (
            nodules,
            healthy_slices,
            groups,
            outlines,
        )
        self.plan, self.seed = np.asarray(plan), seed  # a mapped array's items are slow to get
        self.categories = categories_of(nodules, categories)
        self._stamp = lru_cache(maxsize=STAMPS)(self._make_stamp)

    def composite(self, number: int) -> Composite:
        """Composite ``number`` of the plan."""
        index = int(self.plan["index"][number])
        normal, group = divmod(index, len(self.groups))
        image, lung = np.array(self.healthy_slices.hu[normal]), np.asarray(self.healthy_slices.lung[normal])
        mask = np.zeros(image.shape, np.uint8)
        random = make_rng(self.seed, "noise", index)
        spacing = self.healthy_slices.records[normal].spacing_mm
        for member, place in self._members(number, group, image.shape[1]):
            nodule, turn = int(self.groups.members[group, member]), int(self.groups.turns[group, member])
            stamp = self._stamp(nodule, spacing).turned(ORIENTATIONS[TURNS[turn]])
            box, inside = blend(image, lung, stamp, place, random)
            mask[box][inside] = self._label(nodule)
        return Composite(image, mask, self.record(number))

    def record(self, number: int) -> dict[str, Any]:
        """What composite ``number`` is made of: enough to make it again, and to know whose tissue it shows.

        ``synthetic``, ``bundle`` and ``version`` say what made it.
        ``composite`` its number, ``index`` = normal x groups + group, ``seed``, ``distance_mm`` from the
        outermost nodule to the edge of the parenchyma, ``normal`` and ``nodules`` with the names in their
        banks; a nodule's ``row`` and ``column`` are its middle's, ``turn`` its flip or rotation,
        ``diameter_mm`` what a reader would measure in the picture (of the disc with the area at half of the
        nodule's contrast), ``mask_diameter_mm`` that of the mask which was drawn of it: readers of LIDC-IDRI
        draw on the outside.
        """
        entry = self.plan[number]
        normal, group = divmod(int(entry["index"]), len(self.groups))
        lung = self.healthy_slices.records[normal]
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
                self._nodule_record(group, member, place, lung.spacing_mm)
                for member, place in self._members(number, group, self.healthy_slices.hu.shape[2])
            ],
        }

    def member(self, number: int, form: Format) -> Member:
        """Composite ``number`` as the files of a shard."""
        image, mask, record = self.composite(number)
        files = {
            f"image.{form.suffix}": form.image(image, record["spacing_mm"]),
            f"mask.{form.suffix}": form.mask(mask, record["spacing_mm"]),
            "json": json.dumps(record, separators=(",", ":")).encode(),
        }
        return Member(number, files)

    def _members(self, number: int, group: int, width: int) -> list[tuple[int, tuple[int, int]]]:
        """The group's members and the row and column of each."""
        pixels = self.plan["pixels"][number].tolist()
        members = self.groups.members[group].tolist()
        return [(m, divmod(pixels[m], width)) for m, nodule in enumerate(members) if nodule >= 0]

    def _nodule_record(
        self, group: int, member: int, place: tuple[int, int], spacing_mm: float
    ) -> dict[str, Any]:
        nodule = int(self.groups.members[group, member])
        source = self.nodules.records[nodule]
        return {
            "name": source.name,
            "patient": source.patient,
            "origin": source.origin,
            "category": source.category,
            "diameter_mm": round(self._stamp(nodule, spacing_mm).outline.diameter_mm, 2),
            "mask_diameter_mm": source.diameter_mm,
            "row": place[0],
            "column": place[1],
            "turn": TURNS[int(self.groups.turns[group, member])],
        }

    def _label(self, nodule: int) -> int:
        category = self.nodules.records[nodule].category
        return self.categories.index(category) + 1 if category else 1

    def _make_stamp(self, nodule: int, spacing_mm: float) -> Stamp:
        crop: NDArray[np.int16] = self.nodules.hu[nodule]
        own = self.nodules.records[nodule].spacing_mm
        return make_stamp(crop, self.nodules.alpha[nodule], self.outlines.centres[nodule], own, spacing_mm)


def categories_of(nodules: NoduleBank, known: Sequence[str] = ()) -> list[str]:
    """The names of a bank's categories; label k + 1 stands for category k.

    Args:
        known: the names in the order of the labels; without any the bank's own in alphabetical order.
    Raises:
        UserError: a nodule's category is not among the known ones.
    """
    if not known:
        return sorted({record.category for record in nodules.records} - {""})
    for record in nodules.records:
        if record.category and record.category not in known:
            raise UserError(
                f"nodule {record.name}: category {record.category!r} is none of {', '.join(known)}"
            )
    return list(known)

"""A composite from its number: slice, mask and where they come from. In any order, in any process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.blending import blend
from bundles.lung_two_stage.composition.formats import Format, made_by
from bundles.lung_two_stage.composition.groups import TURNS, Groups
from bundles.lung_two_stage.composition.outlines import Outlines
from bundles.lung_two_stage.composition.reading import Composite
from bundles.lung_two_stage.composition.shards import Member
from bundles.lung_two_stage.composition.stamps import Stamp, make_stamp
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.random import generator

STAMPS = 4096
"""Nodules kept at a slice's pixel size: some 30 MB."""


class Renderer:
    """Renders composites of a plan; what it holds does not grow with their number.

    Args:
        nodules, normals: the banks of the plan.
        groups: the plan's.
        outlines: of ``nodules``.
        plan: see `bundles.lung_two_stage.composition.planning.make_plan`.
        seed: of the noise.
        categories: see `categories_of`.
    """

    def __init__(
        self,
        nodules: NoduleBank,
        normals: SliceBank,
        groups: Groups,
        outlines: Outlines,
        plan: np.ndarray,
        seed: int,
        categories: Sequence[str] = (),
    ) -> None:
        self.nodules, self.normals, self.groups, self.outlines = nodules, normals, groups, outlines
        self.plan, self.seed = np.asarray(plan), seed  # a mapped array's items are slow to get
        self.categories = categories_of(nodules, categories)
        self._stamp = lru_cache(maxsize=STAMPS)(self._make_stamp)

    def composite(self, number: int) -> Composite:
        """Composite ``number`` of the plan."""
        index = int(self.plan["index"][number])
        normal, group = divmod(index, len(self.groups))
        image, lung = np.array(self.normals.hu[normal]), np.asarray(self.normals.lung[normal])
        mask = np.zeros(image.shape, np.uint8)
        random = generator(self.seed, "noise", index)
        spacing = self.normals.records[normal].spacing_mm
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
        lung = self.normals.records[normal]
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
                for member, place in self._members(number, group, self.normals.hu.shape[2])
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

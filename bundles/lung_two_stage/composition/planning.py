"""The plan of all composites: which normal, which group, which places, chosen on geometry alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.groups import Groups, draw_groups
from bundles.lung_two_stage.composition.outlines import Outlines, outlines_of
from bundles.lung_two_stage.composition.placing import LungField, Placed, place_groups
from bundles.lung_two_stage.composition.selecting import Farthest
from bundles.lung_two_stage.extraction.presence import PresenceMap
from common.errors import UserError
from common.random import generator

SHARE = 0.4
"""Of all combinations that the paper keeps: 1 000 000 of 2 500 000."""


@dataclass(frozen=True)
class Rules:
    """How composites are drawn and chosen.

    Args:
        count: how many are kept; None for `SHARE` of the combinations, or of what is possible.
        groups: nodule groups; each meets each normal.
        most_nodules: of a group.
        attempts: draws for a nodule's place before the combination is given up.
        seed: of groups, places and order.
    """

    count: int | None = None
    groups: int = 5000
    most_nodules: int = 3
    attempts: int = 50
    seed: int = 0


@dataclass
class Account:
    """What became of the combinations, plain JSON by `vars`."""

    attempts: int
    combinations: int
    kept: int = 0
    possible: int = 0
    too_large: int = 0
    no_place: int = 0
    normals_without_lung: list[str] = field(default_factory=list)
    nodules_without_mask: list[str] = field(default_factory=list)

    def add(self, placed: Placed) -> None:
        """Counts one normal's combinations."""
        possible = np.isfinite(placed.margins)
        self.possible += int(possible.sum())
        self.too_large += int(placed.too_large.sum())
        self.no_place += int((~possible & ~placed.too_large).sum())

    def impossible(self) -> str:
        """What could not be placed, in words; empty where all could."""
        parts = [
            (self.too_large, "with a nodule larger than the lung"),
            (self.no_place, f"without a free place in {self.attempts} draws"),
            (len(self.normals_without_lung), "normal slices without lung"),
            (len(self.nodules_without_mask), "nodules without a mask"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def plan_kind(groups: Groups) -> np.dtype:
    """Of an entry of the plan: ``index`` = normal x groups + group, ``margin`` in mm, ``pixels`` (k,)."""
    return np.dtype([("index", "<i8"), ("margin", "<f4"), ("pixels", "<i4", (groups.members.shape[1],))])


def make_plan(
    nodules: NoduleBank, normals: SliceBank, presence: PresenceMap, rules: Rules
) -> tuple[np.ndarray, Account]:
    """Places every group in every normal and keeps the combinations farthest from the parenchyma's edge.

    Returns:
        The plan, composite k at place k, in an order drawn by the seed (neighbours differ in everything); and
        what became of all combinations.
    Raises:
        UserError: a bank is not fit, or fewer combinations are possible than wanted.
    """
    check_normals(normals)
    outlines = outlines_of(nodules)
    groups = draw_groups(rules.seed, rules.groups, outlines.usable, rules.most_nodules)
    account = Account(rules.attempts, combinations=len(normals) * len(groups))
    account.nodules_without_mask = [
        record.name for record, radius in zip(nodules.records, outlines.radii_mm, strict=True) if not radius
    ]
    wanted = round(SHARE * account.combinations) or 1 if rules.count is None else rules.count
    _check_enough(wanted, account.combinations, account)
    best = Farthest(wanted, plan_kind(groups))
    for candidates in _candidates(normals, presence, groups, outlines, rules, account):
        best.add(candidates)
    _check_enough(1 if rules.count is None else wanted, account.possible, account)
    chosen = best.best()
    account.kept = len(chosen)
    return chosen[generator(rules.seed, "order").permutation(len(chosen))], account


def placed_in(
    normals: SliceBank, number: int, presence: PresenceMap, groups: Groups, outlines: Outlines, rules: Rules
) -> Placed:
    """The groups in one normal, which has a lung."""
    lung, spacing = np.asarray(normals.lung[number]), normals.records[number].spacing_mm
    there = LungField.of(lung, presence.on(lung), spacing)
    return place_groups(groups, outlines.radii_mm, there, rules.seed, number, rules.attempts)


def check_normals(normals: SliceBank) -> None:
    """Refuses slices that hold nodules already, and what is no bank of slices.

    Raises:
        UserError: names the first.
    """
    if not normals.hu.shape == normals.lung.shape == normals.nodules.shape:
        raise UserError("normal slices: images, lungs and nodules differ in shape; make the bank again")
    for record, nodules in zip(normals.records, normals.nodules, strict=True):
        if nodules.any():
            raise UserError(f"normal slice {record.name}: holds nodules; give slices without any")
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(
                f"normal slice {record.name}: spacing of {record.spacing_mm} mm; give one above 0"
            )


def _candidates(
    normals: SliceBank,
    presence: PresenceMap,
    groups: Groups,
    outlines: Outlines,
    rules: Rules,
    account: Account,
) -> Iterator[np.ndarray]:
    """The combinations of each normal in turn, counted."""
    for number in tqdm(range(len(normals)), "placing nodules", unit="slice", disable=None, leave=False):
        if not normals.lung[number].any():
            account.normals_without_lung.append(normals.records[number].name)
            continue
        placed = placed_in(normals, number, presence, groups, outlines, rules)
        account.add(placed)
        candidates = np.empty(len(groups), plan_kind(groups))
        candidates["index"] = number * len(groups) + np.arange(len(groups))
        candidates["margin"], candidates["pixels"] = placed.margins, placed.pixels
        yield candidates


def _check_enough(wanted: int, there: int, account: Account) -> None:
    if wanted <= there:
        return
    lost = account.impossible()
    raise UserError(
        f"count {wanted}: only {there} of {account.combinations} combinations can be made"
        f"{f' ({lost})' if lost else ''}; lower the count, or give more groups or normals"
    )

"""The plan of all composites: which normal, which group, which places, chosen on geometry alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.patches import NODULE_ALPHA, make_stamp
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.rng import make_rng

NOBODY = -1
TURNS = tuple(ORIENTATIONS)
"""Names of the eight flips and rotations, by number."""


@dataclass(frozen=True)
class Groups:
    """G groups of 1 to k different nodules.

    Args:
        members: (G, k) int32 numbers of nodules, `NOBODY` in the places of smaller groups.
        turns: (G, k) uint8, each member's flip or rotation: a place in `TURNS`.
    """

    members: NDArray[np.int32]
    turns: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.members)

    def first(self, count: int) -> Groups:
        """The first groups alone."""
        return Groups(self.members[:count], self.turns[:count])


def draw_groups(seed: int, count: int, usable: NDArray[np.int64], most: int) -> Groups:
    """Draws ``count`` groups; the first ones are the same whatever their number.

    Args:
        usable: numbers of the nodules to choose from.
        most: k, most members of a group; fewer where there are fewer nodules.
    """
    most = min(most, len(usable))
    drawn = make_rng(seed, "groups").random((count, 1 + 2 * most))
    sizes = 1 + (drawn[:, :1] * most).astype(np.int64)  # (G, 1)
    members = usable[_different(drawn[:, 1 : 1 + most], len(usable))]
    members[np.arange(most) >= sizes] = NOBODY
    turns = (drawn[:, 1 + most :] * len(TURNS)).astype(np.uint8)
    return Groups(members.astype(np.int32), turns)


def _different(drawn: NDArray[np.float64], among: int) -> NDArray[np.int64]:
    """(G, k) numbers in [0, 1) to k different whole numbers below ``among`` in each row."""
    chosen = np.empty(drawn.shape, np.int64)
    for place in range(drawn.shape[1]):
        value = (drawn[:, place] * (among - place)).astype(np.int64)
        for earlier in np.sort(chosen[:, :place], axis=1).T:  # makes room for each number taken
            value += value >= earlier
        chosen[:, place] = value
    return chosen


@dataclass(frozen=True)
class Outlines:
    """The circles that hold the nodules of a bank.

    Args:
        centres: (N, 2) float64, row and column of the centre of gravity of what is seen of the nodule, see
            `bundles.lung_two_stage.composition.patches`, in pixels of the crop.
        radii_mm: (N,) float32, from there to the far end of its farthest point; 0 of an empty mask.
    """

    centres: NDArray[np.float64]
    radii_mm: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.int64]:
        """The nodules that have a mask."""
        return np.flatnonzero(self.radii_mm > 0)


def outlines_of(bank: NoduleBank) -> Outlines:
    """Measures every nodule of a bank.

    Raises:
        UserError: none has a mask, a spacing makes no sense, or images and alphas differ in shape.
    """
    if bank.hu.shape != bank.alpha.shape:
        raise UserError("nodules: crops and alphas differ in shape; make the bank again")
    centres, radii = np.zeros((len(bank), 2)), np.zeros(len(bank), np.float32)
    for place, record in enumerate(bank.records):
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(f"nodule {record.name}: spacing of {record.spacing_mm} mm; give one above 0")
        hu, alpha, mm = np.asarray(bank.hu[place]), np.asarray(bank.alpha[place]), record.spacing_mm
        drawn = np.argwhere(alpha >= NODULE_ALPHA)  # (P, 2)
        if not len(drawn):
            continue
        middle = np.rint(drawn.mean(axis=0))  # on a pixel: the stamp is the crop as it is
        stamp = make_stamp(hu, alpha, middle, mm, mm)
        points, half = stamp.outline.points + middle - stamp.hu.shape[0] // 2, stamp.outline.point_mm / 2
        centres[place] = points.mean(axis=0)
        radii[place] = np.hypot(*(points - centres[place]).T).max() * mm + half
    if not radii.any():
        raise UserError("nodules: none of the bank has a mask (alpha of at least a half); make it again")
    return Outlines(centres, radii)


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
            random = make_rng(seed, "placement", normal, member, attempt).random(len(groups))[waiting]
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


def farthest(margins: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the ``count`` largest margins, ascending; of equal margins the first ones.

    Args:
        margins: (M,) in mm.
        count: 0 to M.
    """
    if count >= len(margins):
        return np.arange(len(margins))
    if count == 0:
        return np.empty(0, np.int64)
    limit = np.partition(margins, len(margins) - count)[len(margins) - count]
    above = np.flatnonzero(margins > limit)
    equal = np.flatnonzero(margins == limit)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


class Farthest:
    """Takes candidates piece by piece, in order, and keeps the ``count`` best.

    Holds at most twice as many as wanted (and one piece).

    Args:
        count: how many to keep.
        kind: numpy type of a candidate, with a field ``margin``.
    """

    def __init__(self, count: int, kind: np.dtype) -> None:
        self.count = count
        self._pieces = [np.empty(0, kind)]

    def add(self, candidates: np.ndarray) -> None:
        """Takes the next piece; impossible ones (margin -inf) are passed over."""
        self._pieces.append(candidates[np.isfinite(candidates["margin"])])
        if sum(map(len, self._pieces)) > 2 * self.count:
            self._pieces = [self.best()]

    def best(self) -> np.ndarray:
        """The best so far, in the order they came; fewer than ``count`` where there were no more."""
        everything = np.concatenate(self._pieces)
        return everything[farthest(everything["margin"], self.count)]


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
    slices_without_lung: list[str] = field(default_factory=list)
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
            (len(self.slices_without_lung), "healthy slices without lung"),
            (len(self.nodules_without_mask), "nodules without a mask"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)


def plan_kind(groups: Groups) -> np.dtype:
    """Of an entry of the plan: ``index`` = normal x groups + group, ``margin`` in mm, ``pixels`` (k,)."""
    return np.dtype([("index", "<i8"), ("margin", "<f4"), ("pixels", "<i4", (groups.members.shape[1],))])


def make_plan(
    nodules: NoduleBank, healthy_slices: SliceBank, presence: PresenceMap, rules: Rules
) -> tuple[np.ndarray, Account]:
    """Places every group in every normal and keeps the combinations farthest from the parenchyma's edge.

    Returns:
        The plan, composite k at place k, in an order drawn by the seed (neighbours differ in everything); and
        what became of all combinations.
    Raises:
        UserError: a bank is not fit, or fewer combinations are possible than wanted.
    """
    check_healthy_slices(healthy_slices)
    outlines = outlines_of(nodules)
    groups = draw_groups(rules.seed, rules.groups, outlines.usable, rules.most_nodules)
    account = Account(rules.attempts, combinations=len(healthy_slices) * len(groups))
    account.nodules_without_mask = [
        record.name for record, radius in zip(nodules.records, outlines.radii_mm, strict=True) if not radius
    ]
    wanted = round(SHARE * account.combinations) or 1 if rules.count is None else rules.count
    _check_enough(wanted, account.combinations, account)
    best = Farthest(wanted, plan_kind(groups))
    for candidates in _candidates(healthy_slices, presence, groups, outlines, rules, account):
        best.add(candidates)
    _check_enough(1 if rules.count is None else wanted, account.possible, account)
    chosen = best.best()
    account.kept = len(chosen)
    return chosen[make_rng(rules.seed, "order").permutation(len(chosen))], account


def placed_in(
    healthy_slices: SliceBank,
    number: int,
    presence: PresenceMap,
    groups: Groups,
    outlines: Outlines,
    rules: Rules,
) -> Placed:
    """The groups in one normal, which has a lung."""
    lung, spacing = np.asarray(healthy_slices.lung[number]), healthy_slices.records[number].spacing_mm
    there = LungField.of(lung, presence.on(lung), spacing)
    return place_groups(groups, outlines.radii_mm, there, rules.seed, number, rules.attempts)


def check_healthy_slices(healthy_slices: SliceBank) -> None:
    """Refuses slices that hold nodules already, and what is no bank of slices.

    Raises:
        UserError: names the first.
    """
    if not healthy_slices.hu.shape == healthy_slices.lung.shape == healthy_slices.nodules.shape:
        raise UserError("healthy slices: images, lungs and nodules differ in shape; make the bank again")
    for record, nodules in zip(healthy_slices.records, healthy_slices.nodules, strict=True):
        if nodules.any():
            raise UserError(f"healthy slice {record.name}: holds nodules; give slices without any")
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(
                f"healthy slice {record.name}: spacing of {record.spacing_mm} mm; give one above 0"
            )


def _candidates(
    healthy_slices: SliceBank,
    presence: PresenceMap,
    groups: Groups,
    outlines: Outlines,
    rules: Rules,
    account: Account,
) -> Iterator[np.ndarray]:
    """The combinations of each normal in turn, counted."""
    for number in tqdm(
        range(len(healthy_slices)), "placing nodules", unit="slice", disable=None, leave=False
    ):
        if not healthy_slices.lung[number].any():
            account.slices_without_lung.append(healthy_slices.records[number].name)
            continue
        placed = placed_in(healthy_slices, number, presence, groups, outlines, rules)
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
        f"{f' ({lost})' if lost else ''}; lower the count, or give more groups or healthy slices"
    )

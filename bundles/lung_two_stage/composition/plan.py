"""The plan of all composites: which slice, which nodules, and where, chosen by geometry alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.patches import NODULE_ALPHA, make_patch
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.rng import make_rng

NONE = -1
"""Number of a nodule or of a pixel where a group has fewer members than others."""
FLIP_ROTS = tuple(ORIENTATIONS)
"""Names of the eight flips and rotations, by number."""
SHARE = 0.4
"""Share of all combinations that the paper keeps: 1 000 000 of 2 500 000."""


@dataclass(frozen=True)
class Groups:
    """G groups of 1 to k different nodules.

    Args:
        members: (G, k) int32 numbers of nodules; `NONE` beyond a group's size.
        flip_rots: (G, k) uint8, each member's flip or rotation as an index of `FLIP_ROTS`.
    """

    members: NDArray[np.int32]
    flip_rots: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.members)

    def first(self, count: int) -> Groups:
        """The first ``count`` groups."""
        return Groups(self.members[:count], self.flip_rots[:count])


def draw_groups(seed: int, count: int, usable: NDArray[np.int64], most: int) -> Groups:
    """Draws groups of nodules. The first ones do not depend on ``count``.

    Args:
        seed: of the draw.
        count: G, number of groups.
        usable: numbers of the nodules to choose from.
        most: k, largest size of a group; fewer where there are fewer nodules.

    Example:
        >>> draw_groups(seed=0, count=5, usable=np.array([3, 7]), most=3).members.shape
        (5, 2)
    """
    most = min(most, len(usable))
    random = make_rng(seed, "groups").random((count, 1 + 2 * most))
    sizes = 1 + (random[:, :1] * most).astype(np.int64)  # (G, 1)
    members = usable[_distinct(random[:, 1 : 1 + most], len(usable))]
    members[np.arange(most) >= sizes] = NONE
    flip_rots = (random[:, 1 + most :] * len(FLIP_ROTS)).astype(np.uint8)
    return Groups(members.astype(np.int32), flip_rots)


def _distinct(random: NDArray[np.float64], upper: int) -> NDArray[np.int64]:
    """Maps (G, k) numbers in [0, 1) to k different integers below ``upper`` in each row."""
    chosen = np.empty(random.shape, np.int64)
    for column in range(random.shape[1]):
        value = (random[:, column] * (upper - column)).astype(np.int64)
        for earlier in np.sort(chosen[:, :column], axis=1).T:  # skips each number already taken
            value += value >= earlier
        chosen[:, column] = value
    return chosen


@dataclass(frozen=True)
class NoduleGeometry:
    """The smallest circles around the nodules of a bank, centred on their centres of gravity.

    Args:
        centres: (N, 2) float64, row and column in pixels of the crop, of the visible nodule (see
            `bundles.lung_two_stage.composition.patches.find_outline`).
        radii_mm: (N,) float32, from there to the outer edge of the farthest point; 0 for an empty mask.
    """

    centres: NDArray[np.float64]
    radii_mm: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.int64]:
        """Numbers of the nodules that have a mask."""
        return np.flatnonzero(self.radii_mm > 0)


def measure_nodules(bank: NoduleBank) -> NoduleGeometry:
    """Measures every nodule of a bank.

    Raises:
        UserError: no nodule has a mask, a spacing is not positive, or images and alphas differ in shape.
    """
    if bank.hu.shape != bank.alpha.shape:
        raise UserError("nodules: crops and alphas differ in shape; make the bank again")
    centres, radii = np.zeros((len(bank), 2)), np.zeros(len(bank), np.float32)
    for index, record in enumerate(bank.records):
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(f"nodule {record.name}: spacing of {record.spacing_mm} mm; give one above 0")
        hu, alpha, mm = np.asarray(bank.hu[index]), np.asarray(bank.alpha[index]), record.spacing_mm
        drawn = np.argwhere(alpha >= NODULE_ALPHA)  # (P, 2)
        if not len(drawn):
            continue
        middle = np.rint(drawn.mean(axis=0))  # a whole pixel: nothing is resampled
        patch = make_patch(hu, alpha, middle, mm, mm)
        points, half = patch.outline.points + middle - patch.hu.shape[0] // 2, patch.outline.point_mm / 2
        centres[index] = points.mean(axis=0)
        radii[index] = np.hypot(*(points - centres[index]).T).max() * mm + half
    if not radii.any():
        raise UserError("nodules: none of the bank has a mask (alpha of at least a half); make it again")
    return NoduleGeometry(centres, radii)


@dataclass(frozen=True)
class LungField:
    """The pixels of a lung, the probability of a nodule at each, and their depth.

    Args:
        width: of the slice in pixels.
        spacing_mm: side of a pixel.
        pixels: (P,) int32, indices into the flattened slice.
        cumulative: (P,) float64, running sum of the probabilities.
        depths: (P,) float32, mm from the pixel's centre to the edge of the parenchyma.
    """

    width: int
    spacing_mm: float
    pixels: NDArray[np.int32]
    cumulative: NDArray[np.float64]
    depths: NDArray[np.float32]

    @classmethod
    def from_slice(
        cls, lung: NDArray[np.uint8], presence: NDArray[np.float32], spacing_mm: float
    ) -> LungField:
        """The field of a slice, whose border counts as an edge of the lung.

        Args:
            lung: (H, W), 0 outside; not empty.
            presence: (H, W) probability of a nodule's centre.
            spacing_mm: side of a pixel.
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
        """Maps numbers in [0, 1) to indices of ``pixels``, drawn by their probability."""
        indices = np.searchsorted(self.cumulative, random * self.cumulative[-1], side="right")
        return np.minimum(indices, len(self.pixels) - 1)

    def distance_mm(self, first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.float64]:
        """Distances between pixels in mm."""
        rows = first // self.width - second // self.width
        columns = first % self.width - second % self.width
        return np.hypot(rows, columns) * self.spacing_mm


@dataclass(frozen=True)
class Placement:
    """The positions of all groups in one lung.

    Args:
        pixels: (G, k) int32, the members' positions in the flattened slice; `NONE` where there is none.
        margins: (G,) float32, least mm from a member's circle to the edge of the parenchyma; -inf where not
            all members could be placed.
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
    number: int,
    attempts: int,
) -> Placement:
    """Draws a position for every member by presence probability: inside the lung, not touching the others.

    A draw depends on seed, slice, member, attempt and the group's number alone, so that a group's positions
    are the same in any order and whatever groups follow.

    Args:
        groups: to be placed.
        radii_mm: (N,) of all nodules of the bank.
        field: of the slice.
        seed: of the draws.
        number: of the slice.
        attempts: draws for a member before the group is given up.
    """
    present = groups.members >= 0
    radii = np.where(present, radii_mm[groups.members], 0)  # (G, k)
    pixels = np.full(present.shape, NONE, np.int32)
    margins = np.full(present.shape, np.inf, np.float32)
    too_large = radii.max(axis=1) > field.depths.max()
    possible = ~too_large
    for member in range(present.shape[1]):
        waiting = np.flatnonzero(present[:, member] & possible)
        for attempt in range(attempts):
            if not len(waiting):
                break
            random = make_rng(seed, "placement", number, member, attempt).random(len(groups))[waiting]
            drawn = field.draw(random)
            position, slack = field.pixels[drawn], field.depths[drawn] - radii[waiting, member]
            fits = slack >= 0
            for earlier in range(member):
                away = field.distance_mm(pixels[waiting, earlier], position)
                fits &= away >= radii[waiting, earlier] + radii[waiting, member]
            pixels[waiting[fits], member] = position[fits]
            margins[waiting[fits], member] = slack[fits]
            waiting = waiting[~fits]
        possible[waiting] = False
    return Placement(pixels, np.where(possible, margins.min(axis=1), -np.inf).astype(np.float32), too_large)


class Farthest:
    """Keeps the ``count`` candidates with the largest margins; of equal ones the first.

    Candidates come in pieces, and no more than twice as many as wanted (and one piece) are held.

    Example:
        >>> dtype = np.dtype([("index", int), ("margin", float)])
        >>> candidates = np.array([(0, 1.0), (1, 3.0), (2, -np.inf), (3, 2.0)], dtype)
        >>> best = Farthest(2, dtype)
        >>> best.add(candidates)
        >>> best.best()["index"].tolist()
        [1, 3]

    Args:
        count: how many to keep.
        dtype: of a candidate, with a field ``margin``; -inf is never kept.
    """

    def __init__(self, count: int, dtype: np.dtype) -> None:
        self.count = count
        self._pieces = [np.empty(0, dtype)]

    def add(self, candidates: np.ndarray) -> None:
        """Takes the next piece."""
        self._pieces.append(candidates[np.isfinite(candidates["margin"])])
        if sum(map(len, self._pieces)) > 2 * self.count:
            self._pieces = [self.best()]

    def best(self) -> np.ndarray:
        """The best so far in the order in which they came; fewer than ``count`` if there were no more."""
        candidates = np.concatenate(self._pieces)
        order = np.argsort(-candidates["margin"], kind="stable")
        return candidates[np.sort(order[: self.count])]


@dataclass(frozen=True)
class PlanSettings:
    """What the plan depends on besides the banks.

    Args:
        count: composites to keep; None for `SHARE` of the combinations, or of what is possible.
        groups: nodule groups; each is combined with each healthy slice.
        most_nodules: largest size of a group.
        attempts: draws of a nodule's position before the combination is given up.
        seed: of groups, positions and order.
    """

    count: int | None = None
    groups: int = 5000
    most_nodules: int = 3
    attempts: int = 50
    seed: int = 0


@dataclass
class PlacementStats:
    """Counts of combinations; `vars` makes plain JSON of it.

    Args:
        attempts: of `PlanSettings`.
        combinations: healthy slices times groups.
        kept: in the plan.
        possible: all members could be placed.
        too_large: a nodule is larger than the lung.
        no_place: no free position was drawn.
        slices_without_lung, nodules_without_mask: names in the banks.
    """

    attempts: int
    combinations: int
    kept: int = 0
    possible: int = 0
    too_large: int = 0
    no_place: int = 0
    slices_without_lung: list[str] = field(default_factory=list)
    nodules_without_mask: list[str] = field(default_factory=list)

    def add(self, placement: Placement) -> None:
        """Counts the combinations of one slice."""
        possible = np.isfinite(placement.margins)
        self.possible += int(possible.sum())
        self.too_large += int(placement.too_large.sum())
        self.no_place += int((~possible & ~placement.too_large).sum())

    def failures(self) -> str:
        """What could not be placed and why; empty if everything could."""
        parts = [
            (self.too_large, "with a nodule larger than the lung"),
            (self.no_place, f"without a free position in {self.attempts} draws"),
            (len(self.slices_without_lung), "healthy slices without lung"),
            (len(self.nodules_without_mask), "nodules without a mask"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)

    def check_enough(self, count: int, available: int) -> None:
        """Raises `UserError` if fewer combinations are available than ``count``."""
        if count > available:
            failures = self.failures()
            raise UserError(
                f"count {count}: only {available} of {self.combinations} combinations can be made"
                f"{f' ({failures})' if failures else ''}; lower the count, or give more groups or slices"
            )


def make_plan(
    nodules: NoduleBank, slices: SliceBank, presence: PresenceMap, settings: PlanSettings
) -> tuple[np.ndarray, PlacementStats]:
    """Places every group in every healthy slice and keeps the combinations farthest from the lung's edge.

    Returns:
        The plan in an order drawn by the seed, a structured array with ``index`` = slice x groups + group,
        ``margin`` in mm and ``pixels`` (k,); and the counts of all combinations.
    Raises:
        UserError: a bank is not valid, or fewer combinations are possible than wanted.
    """
    _check_healthy_slices(slices)
    geometry = measure_nodules(nodules)
    groups = draw_groups(settings.seed, settings.groups, geometry.usable, settings.most_nodules)
    stats = PlacementStats(settings.attempts, combinations=len(slices) * len(groups))
    stats.nodules_without_mask = [
        record.name for record, radius in zip(nodules.records, geometry.radii_mm, strict=True) if not radius
    ]
    count = round(SHARE * stats.combinations) or 1 if settings.count is None else settings.count
    stats.check_enough(count, stats.combinations)
    entry = [("index", "<i8"), ("margin", "<f4"), ("pixels", "<i4", (groups.members.shape[1],))]
    best = Farthest(count, np.dtype(entry))
    for number in tqdm(range(len(slices)), "placing nodules", unit="slice", disable=None, leave=False):
        if not slices.lung[number].any():
            stats.slices_without_lung.append(slices.records[number].name)
            continue
        placement = place_in_slice(slices, number, presence, groups, geometry, settings)
        stats.add(placement)
        candidates = np.empty(len(groups), entry)
        candidates["index"] = number * len(groups) + np.arange(len(groups))
        candidates["margin"], candidates["pixels"] = placement.margins, placement.pixels
        best.add(candidates)
    stats.check_enough(1 if settings.count is None else count, stats.possible)
    chosen = best.best()
    stats.kept = len(chosen)
    return chosen[make_rng(settings.seed, "order").permutation(len(chosen))], stats


def place_in_slice(
    slices: SliceBank,
    number: int,
    presence: PresenceMap,
    groups: Groups,
    geometry: NoduleGeometry,
    settings: PlanSettings,
) -> Placement:
    """Places the groups in one healthy slice, which must show a lung."""
    lung, spacing = np.asarray(slices.lung[number]), slices.records[number].spacing_mm
    lung_field = LungField.from_slice(lung, presence.on_slice(lung), spacing)
    return place_groups(groups, geometry.radii_mm, lung_field, settings.seed, number, settings.attempts)


def _check_healthy_slices(slices: SliceBank) -> None:
    """Raises `UserError` for slices with nodules, without spacing, or arrays of different shapes."""
    if not slices.hu.shape == slices.lung.shape == slices.nodules.shape:
        raise UserError("healthy slices: images, lungs and nodules differ in shape; make the bank again")
    for record, nodules in zip(slices.records, slices.nodules, strict=True):
        if nodules.any():
            raise UserError(f"healthy slice {record.name}: holds nodules; give slices without any")
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(
                f"healthy slice {record.name}: spacing of {record.spacing_mm} mm; give one above 0"
            )

"""Detection of nodules: sensitivity at given rates of false positives (FROC), by the rules of LUNA16.

Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary
nodules in CT images, Medical Image Analysis 2017: a candidate hits a nodule where it lies within the
nodule's radius of its centre. A nodule is as sure as the best candidate that hits it; the others that hit it
are not counted again, and not as false positives either. Candidates that hit nothing are false positives.
Candidates that hit a finding which is known but no nodule to be found (LUNA16's ``annotations_excluded.csv``)
and nothing else are left out: they count neither way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value, percentile_interval, resample_counts
from common.rng import make_rng

RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which LUNA16 reads the sensitivity."""
LEAST_SCORE = 0.05
"""Probability from which a candidate counts, of all methods alike: the curve needs the unsure ones. Cut at
0.5 a method lacks the sensitivity at high rates that its doubts would have bought."""
DECISION = 0.5
"""Probability from which a method that has to decide says nodule."""
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Candidate:
    """A place where a method sees a nodule.

    Args:
        scan: name of the scan, crop or picture.
        position_mm: in the coordinates of the nodules of that scan; a picture has one plane.
        score: higher is surer; any scale.
        radius_mm: how large the method thinks it is; no part of the hit criterion.
    """

    scan: str
    position_mm: Point
    score: float
    radius_mm: float = 0.0


@dataclass(frozen=True)
class TrueNodule:
    """An annotated nodule; as `Candidate`."""

    scan: str
    centre_mm: Point
    diameter_mm: float


@dataclass(frozen=True)
class Hits:
    """What the candidates found.

    Args:
        scores: of each nodule (N,), its best candidate's; -inf for a missed one.
        false: of each candidate (C,), whether it hits nothing.
        ignored: of each candidate (C,), whether it hits excluded findings alone.
    """

    scores: NDArray[np.float64]
    false: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def match_candidates(
    candidates: Sequence[Candidate], nodules: Sequence[TrueNodule], excluded: Sequence[TrueNodule] = ()
) -> Hits:
    """Which nodules are hit, which candidates are false positives, and which count neither way.

    Args:
        excluded: findings that are no nodules to be found; a candidate that hits one is no false positive.
    """
    scores, missed = _hits(candidates, nodules)
    _, beside = _hits(candidates, excluded)
    return Hits(scores, missed & beside, missed & ~beside)


def _hits(
    candidates: Sequence[Candidate], nodules: Sequence[TrueNodule]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The best score that hits each nodule, and which candidates hit none."""
    scores, false = np.full(len(nodules), -np.inf), np.ones(len(candidates), bool)
    by_scan: dict[str, list[int]] = {}
    for place, candidate in enumerate(candidates):
        by_scan.setdefault(candidate.scan, []).append(place)
    for number, nodule in enumerate(nodules):
        places = np.array(by_scan.get(nodule.scan, []), int)
        found = np.array([candidates[place].position_mm for place in places]).reshape(-1, 3)
        near = np.linalg.norm(found - np.array(nodule.centre_mm), axis=1) <= nodule.diameter_mm / 2
        false[places[near]] = False
        scores[number] = max((candidates[place].score for place in places[near]), default=-np.inf)
    return scores, false


@dataclass(frozen=True)
class Froc:
    """How well a method finds nodules; intervals over scans (or patients).

    Args:
        at: sensitivity by the rate of false positives a scan; of the lowest threshold that makes no more.
        cpm: mean of these sensitivities, LUNA16's competition performance metric.
        sensitivity: share of the nodules hit by any candidate at all.
        candidates: candidates a scan, without those that count neither way.
        false_positives: of these, those that hit nothing.
        nodules: how many there are.
    """

    at: dict[float, Value]
    cpm: Value
    sensitivity: Value
    candidates: Value
    false_positives: Value
    nodules: int

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sensitivity_at": {f"{rate:g}": value.plain() for rate, value in self.at.items()},
            "cpm": self.cpm.plain(),
            "sensitivity": self.sensitivity.plain(),
            "candidates_per_scan": self.candidates.plain(),
            "false_positives_per_scan": self.false_positives.plain(),
            "nodules": self.nodules,
        }


def froc(
    candidates: Sequence[Candidate],
    nodules: Sequence[TrueNodule],
    scans: Sequence[str],
    rates: Sequence[float] = RATES,
    patients: Mapping[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    excluded: Sequence[TrueNodule] = (),
) -> Froc:
    """Sensitivities of a method on ``scans``; those without nodules and without candidates count too.

    Args:
        excluded: findings in these scans that count neither way, see `match_candidates`.
        patients: of each scan, where several are one patient's: patients are drawn whole.
        resamples, seed: of the bootstrap.
    Raises:
        UserError: no scans, or a candidate or nodule of another scan.
    """
    curve = _Curve(candidates, nodules, scans, excluded)
    units = None if patients is None else [patients[scan] for scan in scans]
    counts = resample_counts(units, len(scans), resamples, make_rng(seed, "froc"))
    once, drawn = curve.plain(rates), torch.cat([curve(part, rates) for part in counts.split(64)])
    drawn_with = Resamples(counts, units)
    per_scan = partial(_per_scan, drawn_with)
    clusters = len(set(units or scans))
    value = partial(_value, scans=len(scans), clusters=clusters, patients=drawn_with.patients)
    return Froc(
        at={rate: value(once[:, [k]], drawn[:, [k]]) for k, rate in enumerate(rates)},
        cpm=value(once, drawn),
        sensitivity=per_scan(curve.hit_scans, curve.true_scans).within(0, 1),
        candidates=per_scan(curve.all_scans, torch.arange(len(scans))).at_least(0),
        false_positives=per_scan(curve.false_scans, torch.arange(len(scans))).at_least(0),
        nodules=len(nodules),
    )


def competition_metric(
    candidates: Sequence[Candidate],
    nodules: Sequence[TrueNodule],
    scans: Sequence[str],
    rates: Sequence[float] = RATES,
) -> float:
    """`Froc.cpm` alone, for validation; NaN without nodules.

    Raises:
        UserError: see `froc`.
    """
    return float(_Curve(candidates, nodules, scans).plain(rates).mean())


class _Curve:
    """The sensitivities at some rates, as a function of how often each scan counts."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        nodules: Sequence[TrueNodule],
        scans: Sequence[str],
        excluded: Sequence[TrueNodule] = (),
    ) -> None:
        _check(candidates, [*nodules, *excluded], scans)
        numbers = {scan: k for k, scan in enumerate(scans)}
        hits = match_candidates(candidates, nodules, excluded)
        self.count = len(scans)
        self.true_scans = torch.tensor([numbers[nodule.scan] for nodule in nodules], dtype=torch.long)
        found_scans = torch.tensor([numbers[found.scan] for found in candidates], dtype=torch.long)
        self.all_scans = found_scans[torch.from_numpy(~hits.ignored)]
        self.false_scans = found_scans[torch.from_numpy(hits.false)]
        self.hit_scans = self.true_scans[torch.from_numpy(hits.scores > -np.inf)]
        false = [found.score for found, wrong in zip(candidates, hits.false, strict=True) if wrong]
        scores = torch.cat([torch.from_numpy(hits.scores), torch.tensor(false, dtype=torch.float64)])
        order = torch.argsort(scores, descending=True, stable=True)  # (N + F,)
        self.scans = torch.cat([self.true_scans, self.false_scans])[order]
        self.true = (order < len(nodules)).double()
        self.found = self.true * (scores[order] > -np.inf)
        changes = scores[order].diff() != 0  # a threshold lets in all that score the same
        self.last = torch.cat([changes, torch.ones(min(1, len(scores)), dtype=torch.bool)]).nonzero()[:, 0]

    def plain(self, rates: Sequence[float]) -> Tensor:
        """(1, K): each scan counts once."""
        return self(torch.ones(1, self.count, dtype=torch.float64), rates)

    def __call__(self, weights: Tensor, rates: Sequence[float]) -> Tensor:
        """(R, S) weights of the scans -> (R, K) sensitivities; NaN where no nodule is drawn."""
        counted = weights[:, self.scans]  # (R, N + F)
        false = (counted * (1 - self.true)).cumsum(1)[:, self.last] / weights.sum(1, keepdim=True)
        found = (counted * self.found).cumsum(1)[:, self.last]
        found = torch.cat([torch.zeros(len(weights), 1, dtype=torch.float64), found], 1)  # above all scores
        wanted = torch.tensor(rates, dtype=torch.float64).expand(len(weights), -1).contiguous()
        places = torch.searchsorted(false.contiguous(), wanted, right=True)
        return found.gather(1, places) / (counted * self.true).sum(1, keepdim=True)


def _value(once: Tensor, drawn: Tensor, scans: int, clusters: int, patients: int | None) -> Value:
    """The mean over rates of (1, K), with the interval of (R, K), which so many clusters were drawn for.

    Sensitivities at given rates jump: the percentile interval suits them, expanded for few clusters.
    """
    ends = percentile_interval(lambda row: float(row.mean()), drawn, clusters)
    return Value(float(once.mean()), *ends, scans, patients)


def _per_scan(resamples: Resamples, counted: Tensor, among: Tensor) -> Value:
    """How many there are in ``counted`` for each in ``among``; both hold the number of each one's scan."""
    scans = resamples.counts.shape[1]
    parts = torch.stack([torch.bincount(part, minlength=scans) for part in (counted, among)], 1).double()
    return resamples.ratio(parts, lambda sums: float(sums[0] / sums[1]))


def _check(candidates: Sequence[Candidate], nodules: Sequence[TrueNodule], scans: Sequence[str]) -> None:
    if not scans:
        raise UserError("no scans to find nodules in; give a folder with scans")
    named = {candidate.scan for candidate in candidates} | {nodule.scan for nodule in nodules}
    strange = named - set(scans)
    if strange:
        raise UserError(f"{min(strange)}: not one of the {len(scans)} scans; evaluate all scans together")

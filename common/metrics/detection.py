"""Detection of nodules: sensitivity at given rates of false positives (FROC), by the rules of LUNA16.

Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary
nodules in CT images, Medical Image Analysis 2017: a candidate hits a nodule if its distance from the centre
is at most the nodule's radius. A nodule has the score of the best candidate that hits it; others that hit it
count neither again nor as false positives. Candidates that hit nothing are false positives. Candidates that
only hit an excluded finding (LUNA16's ``annotations_excluded.csv``) are ignored.
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
"""False positives per scan at which LUNA16 reads the sensitivity."""
LEAST_SCORE = 0.05
"""Probability from which a candidate counts, the same for all methods. A cut at 0.5 would cost sensitivity at
high rates of false positives."""
DECISION = 0.5
"""Probability from which a method that has to decide calls a candidate a nodule."""
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Candidate:
    """A position at which a method detects a nodule.

    Args:
        scan: name of the scan, crop or picture.
        position_mm: in the coordinates of the nodules of that scan; a picture has one plane.
        score: higher is more certain, on any scale.
        radius_mm: estimated size; no part of the hit criterion.
    """

    scan: str
    position_mm: Point
    score: float
    radius_mm: float = 0.0


@dataclass(frozen=True)
class TrueNodule:
    """An annotated nodule; coordinates as of `Candidate`."""

    scan: str
    centre_mm: Point
    diameter_mm: float


@dataclass(frozen=True)
class Hits:
    """The result of matching candidates with nodules.

    Attributes:
        scores: (N,) the score of each nodule's best candidate; -inf for a missed nodule.
        false: (C,) whether a candidate hits nothing.
        ignored: (C,) whether a candidate hits only excluded findings.
    """

    scores: NDArray[np.float64]
    false: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def match_candidates(
    candidates: Sequence[Candidate], nodules: Sequence[TrueNodule], excluded: Sequence[TrueNodule] = ()
) -> Hits:
    """Matches candidates with nodules by LUNA16's rules.

    Args:
        excluded: findings that need not be found; a candidate that hits one is no false positive.

    Example:
        >>> candidates = [Candidate("scan", (0, 0, 3), 0.9), Candidate("scan", (50, 0, 0), 0.4)]
        >>> hits = match_candidates(candidates, [TrueNodule("scan", (0, 0, 0), diameter_mm=8)])
        >>> hits.scores.tolist(), hits.false.tolist()
        ([0.9], [False, True])
    """
    scores, missed = _hits(candidates, nodules)
    _, not_excluded = _hits(candidates, excluded)
    return Hits(scores, missed & not_excluded, missed & ~not_excluded)


def _hits(
    candidates: Sequence[Candidate], nodules: Sequence[TrueNodule]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Finds the score of the best candidate that hits each nodule, and which candidates hit none."""
    scores, false = np.full(len(nodules), -np.inf), np.ones(len(candidates), bool)
    by_scan: dict[str, list[int]] = {}
    for index, candidate in enumerate(candidates):
        by_scan.setdefault(candidate.scan, []).append(index)
    for number, nodule in enumerate(nodules):
        indices = np.array(by_scan.get(nodule.scan, []), int)
        positions = np.array([candidates[index].position_mm for index in indices]).reshape(-1, 3)
        near = np.linalg.norm(positions - np.array(nodule.centre_mm), axis=1) <= nodule.diameter_mm / 2
        false[indices[near]] = False
        scores[number] = max((candidates[index].score for index in indices[near]), default=-np.inf)
    return scores, false


@dataclass(frozen=True)
class Froc:
    """The detection performance of a method, with intervals over scans (or patients).

    Attributes:
        at: sensitivity by the rate of false positives per scan, at the lowest threshold with no more of them.
        cpm: mean of these sensitivities, LUNA16's competition performance metric.
        sensitivity: share of the nodules that any candidate hits.
        candidates: candidates per scan, without ignored ones.
        false_positives: candidates per scan that hit nothing.
        nodules: number of nodules.
    """

    at: dict[float, Value]
    cpm: Value
    sensitivity: Value
    candidates: Value
    false_positives: Value
    nodules: int

    def plain(self) -> dict[str, Any]:
        """Returns the values for JSON."""
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
    """Computes the sensitivities of a method on ``scans``, with or without nodules and candidates.

    Args:
        excluded: findings in these scans that are ignored, see `match_candidates`.
        patients: by scan, if several scans belong to one patient; patients are drawn whole.
        resamples, seed: of the bootstrap.
    Raises:
        UserError: there are no scans, or a candidate or nodule belongs to another scan.

    Example:
        >>> nodules = [TrueNodule("a", (0, 0, 0), diameter_mm=8), TrueNodule("b", (9, 9, 9), diameter_mm=8)]
        >>> candidates = [Candidate("a", (0, 0, 3), 0.9), Candidate("b", (50, 0, 0), 0.4)]
        >>> result = froc(candidates, nodules, scans=["a", "b"], resamples=20)
        >>> result.sensitivity.mean, result.false_positives.mean
        (0.5, 0.5)
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
    """Computes only `Froc.cpm`, for validation; NaN without nodules.

    Raises:
        UserError: see `froc`.
    """
    return float(_Curve(candidates, nodules, scans).plain(rates).mean())


class _Curve:
    """The sensitivities at given rates as a function of how often each scan counts."""

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
        own_scans = torch.tensor([numbers[candidate.scan] for candidate in candidates], dtype=torch.long)
        self.all_scans = own_scans[torch.from_numpy(~hits.ignored)]
        self.false_scans = own_scans[torch.from_numpy(hits.false)]
        self.hit_scans = self.true_scans[torch.from_numpy(hits.scores > -np.inf)]
        false = [each.score for each, wrong in zip(candidates, hits.false, strict=True) if wrong]
        scores = torch.cat([torch.from_numpy(hits.scores), torch.tensor(false, dtype=torch.float64)])
        order = torch.argsort(scores, descending=True, stable=True)  # (N + F,)
        self.scans = torch.cat([self.true_scans, self.false_scans])[order]
        self.true = (order < len(nodules)).double()
        self.hits = self.true * (scores[order] > -np.inf)
        changes = scores[order].diff() != 0  # a threshold lets in all that score the same
        self.last = torch.cat([changes, torch.ones(min(1, len(scores)), dtype=torch.bool)]).nonzero()[:, 0]

    def plain(self, rates: Sequence[float]) -> Tensor:
        """Computes the sensitivities (1, K) if each scan counts once."""
        return self(torch.ones(1, self.count, dtype=torch.float64), rates)

    def __call__(self, weights: Tensor, rates: Sequence[float]) -> Tensor:
        """Weights of the scans (R, S) -> sensitivities (R, K); NaN if no nodule is drawn."""
        counted = weights[:, self.scans]  # (R, N + F)
        false = (counted * (1 - self.true)).cumsum(1)[:, self.last] / weights.sum(1, keepdim=True)
        hits = (counted * self.hits).cumsum(1)[:, self.last]
        hits = torch.cat([torch.zeros(len(weights), 1, dtype=torch.float64), hits], 1)  # above all scores
        targets = torch.tensor(rates, dtype=torch.float64).expand(len(weights), -1).contiguous()
        indices = torch.searchsorted(false.contiguous(), targets, right=True)
        return hits.gather(1, indices) / (counted * self.true).sum(1, keepdim=True)


def _value(once: Tensor, drawn: Tensor, scans: int, clusters: int, patients: int | None) -> Value:
    """The mean over rates of (1, K) with the percentile interval of the resamples (R, K) of ``clusters``.

    Sensitivities at given rates jump, so that Student's interval does not suit them.
    """
    ends = percentile_interval(lambda row: float(row.mean()), drawn, clusters)
    return Value(float(once.mean()), *ends, scans, patients)


def _per_scan(resamples: Resamples, counted: Tensor, among: Tensor) -> Value:
    """Computes the ratio of the numbers of ``counted`` and ``among``, which both hold scan numbers."""
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

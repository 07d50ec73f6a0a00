"""Intervals over patients: slices of one patient, or of one generated volume, are not independent.

Each patient's pull on a statistic is found by leaving the patient out (jackknife; Arvesen 1969 shows it for
U-statistics such as KID). The interval is Student's over these pulls, widened on each side to their
bootstrap-t (Efron & Tibshirani 1993, chapter 12) where that reaches farther, as it does for skewed ones. How
often such intervals hold the truth is measured by ``tests/simulations/coverage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from common.rng import make_rng

LEVEL = 0.95
FEWEST = 3
"""Patients below which there is no interval."""
FEW = 10
"""Patients below which a report warns."""
FEWEST_DRAWN = 4
"""Patients from which on the bootstrap-t is used: of three, one draw in nine is a single patient thrice."""
MOST_PARTS = 50
"""Patients left out one by one; of more of them, so many parts are left out."""


@dataclass(frozen=True)
class Value:
    """A metric's value over ``n`` images with its 95 % interval.

    Attributes:
        mean: NaN for no or NaN images.
        low, high: NaN where there is no interval, as with fewer than three patients.
        n: images.
        patients: that the interval is over; of two sets the fewer. None where images are independent.
        p_zero: two-sided p-value of Student's test that the true value is 0; NaN where there is no interval.
            Of use for differences, see `common.metrics.paired_comparison.holm`.
    """

    mean: float
    low: float
    high: float
    n: int
    patients: int | None = None
    p_zero: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def at_least(self, bound: float) -> Value:
        """The same value with an interval that does not go below ``bound``."""
        return self.within(bound, math.inf)

    def within(self, lowest: float, highest: float) -> Value:
        """The same value with an interval that stays within bounds; for shares, 0 and 1."""
        if not self.bounded:
            return self
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))

    def plain(self) -> dict[str, Any]:
        """For JSON, which knows no NaN: ``{"mean", "interval", "n", "patients"}`` with None instead."""
        interval = [float(self.low), float(self.high)] if self.bounded else None
        mean = float(self.mean) if math.isfinite(self.mean) else None
        return {"mean": mean, "interval": interval, "n": self.n, "patients": self.patients}

    def text(self, form: str = ".3g") -> str:
        """For a sentence: ``0.5 [0.4, 0.6]``, without the brackets where there is no interval."""
        ends = f" [{self.low:{form}}, {self.high:{form}}]" if self.bounded else ""
        return f"{self.mean:{form}}{ends}"


def few_patients(patients: int | None) -> str | None:
    """A line of warning for fewer than ten patients."""
    if patients is None or patients >= FEW:
        return None
    one = "patient" if patients == 1 else "patients"
    if patients < FEWEST:
        return f"only {patients} {one}: no intervals, and no word about others; {FEW} or more are needed"
    return f"only {patients} {one}: intervals are wide, and such few may not stand for others"


class Resamples:
    """Statistics of a set of images with their intervals over patients.

    Args:
        counts: how often each image is drawn in each resample (R, N), see `resample_counts`.
        patients: one id an image; None for images that are drawn alike in all resamples to be one patient's.

    Attributes:
        patients: how many there are; None where each image stands for itself.
        parts: (N,) which part of the set each image is left out with, 0..P-1.
    """

    def __init__(self, counts: Tensor, patients: Sequence[str] | None = None) -> None:
        length = counts.shape[1]
        if patients is None:
            alike = np.unique(counts.numpy(), axis=1, return_inverse=True)[1].reshape(-1)
            keys = [f"\0{group}" for group in alike] if length else []
            known = len(set(keys)) < length
        else:
            keys, known = list(patients), True
        self._set(counts, keys, np.zeros(length, np.int64), len(set(keys)) if known else None)

    def _set(self, counts: Tensor, keys: Sequence[str], strata: np.ndarray, patients: int | None) -> None:
        self.counts, self.keys, self.patients = counts, list(keys), patients
        self.strata = strata  # (N,) which sample an image belongs to; samples were drawn apart
        self.groups = np.unique(np.asarray(self.keys, dtype=np.str_), return_inverse=True)[1].reshape(-1)
        self.parts, self.stratum_of_part = _parts(self.groups, strata, MOST_PARTS)

    @classmethod
    def draw(
        cls, patients: Sequence[str] | None, length: int, resamples: int, numbers: np.random.Generator
    ) -> Resamples:
        """Of ``length`` images, each its own patient without ``patients``; see `resample_counts`."""
        counts = resample_counts(patients, length, resamples, numbers)
        return cls.independent(counts) if patients is None else cls(counts, patients)

    @classmethod
    def independent(cls, counts: Tensor) -> Resamples:
        """Of images that each stand for themselves, drawn so often (R, N)."""
        length = counts.shape[1]
        return cls._made(counts, [f"\0{index}" for index in range(length)], np.zeros(length, np.int64), None)

    @classmethod
    def _made(
        cls, counts: Tensor, keys: Sequence[str], strata: np.ndarray, patients: int | None
    ) -> Resamples:
        made = cls.__new__(cls)
        made._set(counts, keys, strata, patients)
        return made

    def subset(self, usable: Tensor) -> Resamples:
        """The same, of the images where ``usable`` (N,) bool holds."""
        places = usable.nonzero()[:, 0].tolist()
        keys = [self.keys[place] for place in places]
        known = None if self.patients is None else len(set(keys))
        return self._made(self.counts[:, usable], keys, self.strata[places], known)

    def join(self, others: Resamples) -> Resamples:
        """This set's images (N) and then the others' (M), as one set.

        Sets without a patient in common were drawn apart: their errors add up. Where they share patients, a
        patient is left out of both.
        """
        first, second = (_keys(each.keys, side) for side, each in enumerate((self, others)))
        strata = np.concatenate([self.strata, others.strata + self.strata.max(initial=-1) + 1])
        split = len(first)
        here = dict(zip(first, strata[:split], strict=True))
        there = dict(zip(second, strata[split:], strict=True))
        for ends in {(here[key], there[key]) for key in here.keys() & there.keys()}:
            strata[strata == max(ends)] = min(ends)
        counts = torch.cat([self.counts, others.counts], dim=1)  # (R, N + M)
        known = [each for each in (self.patients, others.patients) if each is not None]
        return self._made(counts, [*first, *second], strata, min(known) if known else None)

    def mean(self, values: Tensor) -> Value:
        """The mean of one value an image (N,) float64."""
        parts = torch.stack([values, torch.ones_like(values)], dim=1)  # (N, 2)
        return self.ratio(parts, lambda sums: float(sums[0] / sums[1]))

    def share(self, values: Tensor) -> Value:
        """The mean of one value an image (N,) in [0, 1], mostly 0 or 1.

        Where nearly all patients agree their spread says little, and Student's interval is far too short.
        This one is Clopper and Pearson's for as many independent images as the patients' spread is worth
        (Korn & Graubard 1998), for as many as there are patients where they all agree.
        """
        value = self.mean(values)
        if not value.bounded or not len(values):
            return value
        strata, (mean, images) = self.stratum_of_part, (value.mean, len(values))
        without = torch.stack([(values * (self.parts != part)).sum() for part in range(len(strata))])
        counts = torch.stack([(self.parts != part).sum() for part in range(len(strata))])
        (pull,) = _pulls(mean, (without / counts).numpy(), strata)
        variance = float(pull.var(ddof=1)) / len(pull)
        worth = float(len(set(self.keys)))
        if variance > 0 and 0 < mean < 1:
            reach = (stats.t.ppf((1 + LEVEL) / 2, size - 1) for size in (images, len(pull)))
            worth = min(mean * (1 - mean) / variance * (next(reach) / next(reach)) ** 2, float(images))
        low, high = clopper_pearson(mean * worth, worth)
        return replace(value, low=low, high=high)

    def ratio(self, parts: Tensor, statistic: Callable[[Tensor], float]) -> Value:
        """A function of sums over images, such as a ratio of means.

        Args:
            parts: what each image adds to the sums, (N, ...) float64.
            statistic: called with the sums (...).
        """
        sums = torch.zeros(len(self.stratum_of_part), *parts.shape[1:], dtype=torch.float64)
        sums.index_add_(0, self.parts, parts.double())  # (P, ...)
        return self.by_parts(lambda weights: statistic(torch.tensordot(weights, sums, dims=1)))

    def distance(self, statistic: Callable[[Tensor], float], most: int | None = None) -> Value:
        """Any smooth statistic, called with how often each image counts (N,).

        Args:
            most: leave so many parts out at most, where each call is dear.
        """
        parts, strata = self.parts, self.stratum_of_part
        if most is not None and most < MOST_PARTS:
            parts, strata = _parts(self.groups, self.strata, most)
        return self._value(lambda weights: statistic(weights[parts]), strata)

    def distances(self, statistic: Callable[[Tensor], Tensor]) -> Value:
        """As `distance`, of a statistic that takes many weightings (R, N) at once and gives (R,) float64."""
        total = len(self.stratum_of_part)
        weights = torch.ones(total + 1, total, dtype=torch.float64)
        weights[1:].fill_diagonal_(0)
        value, *without = statistic(weights[:, self.parts]).tolist()
        return self._told(value, np.asarray(without), self.stratum_of_part)

    def by_parts(self, statistic: Callable[[Tensor], float]) -> Value:
        """As `distance`, of a statistic that is called with how often each of the ``parts`` counts (P,)."""
        return self._value(statistic, self.stratum_of_part)

    def percentile(self, statistic: Callable[[Tensor], float]) -> Value:
        """For statistics with jumps, such as medians: the percentile interval of the resamples, expanded.

        Args:
            statistic: called with how often each image counts (N,).
        """
        images = self.counts.shape[1]
        if not images:
            return Value(math.nan, math.nan, math.nan, 0, self.patients)
        value = statistic(torch.ones(images, dtype=torch.float64))
        ends = percentile_interval(statistic, self.counts, self.patients)
        return Value(value, *ends, images, self.patients)

    def quotient(self, statistic: Callable[[Tensor], tuple[float, float]]) -> Value:
        """A ratio of two uncertain numbers, called with how often each of the ``parts`` counts (P,).

        The interval is Fieller's (1954): all ratios that the two numbers do not rule out. There is none where
        they do not rule out a denominator of 0. The value is NaN where the denominator is not above 0.
        """
        images, strata = self.counts.shape[1], self.stratum_of_part
        once = np.asarray(statistic(torch.ones(len(strata), dtype=torch.float64)))  # (2,)
        value = float(once[0] / once[1]) if once[1] > 0 else math.nan
        none = Value(value, math.nan, math.nan, images, self.patients)
        if not math.isfinite(value) or self._too_few(strata):
            return none
        pulls = _pulls(once, np.asarray([statistic(weights) for weights in _without(len(strata))]), strata)
        ends = fieller_interval(once, pulls)
        return none if ends is None else replace(none, low=ends[0], high=ends[1])

    def _value(self, statistic: Callable[[Tensor], float], strata: np.ndarray) -> Value:
        if not self.counts.shape[1]:
            return Value(math.nan, math.nan, math.nan, 0, self.patients)
        value = statistic(torch.ones(len(strata), dtype=torch.float64))
        few = self._too_few(strata) or not math.isfinite(value)
        without = [] if few else [statistic(weights) for weights in _without(len(strata))]
        return self._told(value, np.asarray(without), strata)

    def _told(self, value: float, without: np.ndarray, strata: np.ndarray) -> Value:
        """From the value and what it is without each part."""
        images = self.counts.shape[1]
        none = Value(value, math.nan, math.nan, images, self.patients)
        if self._too_few(strata) or not (math.isfinite(value) and np.isfinite(without).all()):
            return none
        pulls = _pulls(value, without, strata)
        low, high = t_interval(value, pulls, len(self.counts))
        return replace(none, low=low, high=high, p_zero=p_of_zero(value, pulls))

    def _too_few(self, strata: np.ndarray) -> bool:
        fewest = int(np.bincount(strata).min()) if len(strata) else 0
        return fewest < 2 or (self.patients is not None and self.patients < FEWEST)


def resample_counts(
    patients: Sequence[str] | None, length: int, resamples: int, numbers: np.random.Generator
) -> Tensor:
    """How often each image is drawn in each resample: (resamples, length) float64.

    Whole patients are drawn with replacement (cluster bootstrap), as many as there are. Without patients
    images are drawn.

    Args:
        patients: one id an image, or None.
        numbers: the source of randomness.
    """
    groups = np.arange(length)
    if patients is not None:
        groups = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)[1].reshape(-1)
    clusters = int(groups.max()) + 1 if length else 0
    drawn = numbers.multinomial(clusters, np.full(clusters, 1 / max(clusters, 1)), size=resamples)
    return torch.from_numpy(drawn[:, groups].astype(np.float64))  # (R, clusters) -> (R, length)


def percentile_interval(
    statistic: Callable[[Tensor], float], rows: Tensor, patients: int | None = None
) -> tuple[float, float]:
    """The percentile interval of ``statistic(row)`` over the resamples.

    A row is a resample: how often each image is drawn (N,), or sums over images drawn so often. Resamples on
    which the statistic is NaN (no lesion drawn) are left out.

    Args:
        patients: that were drawn: the interval is expanded to what so few of them can say (Hesterberg 2015,
            What teachers should know about the bootstrap, section 5.3); NaN for fewer than three.
    """
    tail = (1 - LEVEL) / 2
    if patients is not None:
        if patients < FEWEST:
            return math.nan, math.nan
        reach = math.sqrt(patients / (patients - 1)) * stats.t.ppf(1 - tail, patients - 1)
        tail = float(stats.norm.sf(reach))
    values = torch.tensor([statistic(row) for row in rows], dtype=torch.float64)
    low, high = values.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def clopper_pearson(hits: float, trials: float) -> tuple[float, float]:
    """The interval of a share; whole numbers or not."""
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def t_interval(value: float, pulls: Sequence[np.ndarray], resamples: int) -> tuple[float, float]:
    """Student's interval, on each side widened to the bootstrap-t where that reaches farther.

    Args:
        pulls: of each sample drawn apart, how its patients move the value: (G,) of mean 0 each; the value's
            error is the sum of the samples' means' errors.
        resamples: of the bootstrap-t.
    """
    variances = [float(pull.var(ddof=1)) / len(pull) for pull in pulls]
    error = math.sqrt(sum(variances))
    if error <= 1e-12 * max(abs(value), 1e-300):
        return value, value
    reach = error * _quantile(variances, [len(pull) for pull in pulls])
    low, high = value - reach, value + reach
    if min(len(pull) for pull in pulls) >= FEWEST_DRAWN:
        least, most = _studentised(pulls, error, resamples)
        low, high = min(low, value - most * error), max(high, value - least * error)
    return low, high


def fieller_interval(once: np.ndarray, pulls: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The ratios n / d with |n - ratio d| within Student's reach of its error; None where unbounded.

    Args:
        once: n and d (2,).
        pulls: as of `t_interval`, (G, 2) each.
    """
    spread = [np.cov(pull.T) / len(pull) for pull in pulls]  # (2, 2) each
    line = np.array([1.0, -once[0] / once[1]])
    reach = _quantile([float(line @ each @ line) for each in spread], [len(pull) for pull in pulls])
    squared = np.outer(once, once) - reach**2 * sum(spread)
    if squared[1, 1] <= 0:
        return None
    root = math.sqrt(max(squared[0, 1] ** 2 - squared[0, 0] * squared[1, 1], 0.0))
    return float((squared[0, 1] - root) / squared[1, 1]), float((squared[0, 1] + root) / squared[1, 1])


def p_of_zero(value: float, pulls: Sequence[np.ndarray]) -> float:
    """The two-sided p-value of Student's test of a value against 0, with Welch's degrees of freedom.

    Args:
        pulls: as of `t_interval`.
    """
    variances = [float(pull.var(ddof=1)) / len(pull) for pull in pulls]
    error = math.sqrt(sum(variances))
    if error <= 1e-12 * max(abs(value), 1e-300):
        return 0.0 if value else 1.0
    return float(2 * stats.t.sf(abs(value) / error, _freedom(variances, [len(pull) for pull in pulls])))


def _quantile(variances: Sequence[float], sizes: Sequence[int]) -> float:
    """Student's, with Welch's degrees of freedom."""
    return float(stats.t.ppf((1 + LEVEL) / 2, _freedom(variances, sizes)))


def _freedom(variances: Sequence[float], sizes: Sequence[int]) -> float:
    """Welch's degrees of freedom."""
    total = sum(variances)
    below = sum(each**2 / (size - 1) for each, size in zip(variances, sizes, strict=True))
    return total**2 / below if below > 0 else min(sizes) - 1


def _studentised(pulls: Sequence[np.ndarray], error: float, resamples: int) -> tuple[float, float]:
    """The ends of the bootstrap's (mean - true mean) / error; 0, which widens nothing, where infinite."""
    moved, squared = np.zeros(resamples), np.zeros(resamples)
    for place, pull in enumerate(pulls):
        count = len(pull)
        numbers = make_rng(0, "bootstrap-t", place, count)
        drawn = numbers.multinomial(count, np.full(count, 1 / count), size=resamples)  # (R, G)
        mean = drawn @ pull / count
        moved += mean
        squared += np.maximum(drawn @ pull**2 / count - mean**2, 0) / (count - 1)
    single = squared <= (1e-6 * error) ** 2  # one patient throughout: no spread to divide by
    found = np.sort(
        np.where(single, np.copysign(np.inf, moved), moved / np.sqrt(np.where(single, 1, squared)))
    )
    rank = int((1 - LEVEL) / 2 * resamples)
    least, most = float(found[rank]), float(found[resamples - 1 - rank])
    return (least if math.isfinite(least) else 0.0), (most if math.isfinite(most) else 0.0)


def _pulls(once: float | np.ndarray, without: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    """By sample: how much each part moves the value, as the jackknife's pseudo-values less their mean."""
    found = []
    for stratum in range(int(strata.max()) + 1):
        values = (int((strata == stratum).sum()) - 1) * (once - without[strata == stratum])
        found.append(values - values.mean(0))
    return found


def _without(parts: int) -> list[Tensor]:
    """The weights (P,) of all parts but one, for each."""
    weights = torch.ones(parts, parts, dtype=torch.float64).fill_diagonal_(0)
    return list(weights)


def _parts(groups: np.ndarray, strata: np.ndarray, most: int) -> tuple[Tensor, np.ndarray]:
    """Each image's part (N,), and each part's sample (P,): patients, or of many patients so many parts."""
    parts = np.zeros(len(groups), np.int64)
    owners: list[int] = []
    for number, stratum in enumerate(np.unique(strata)):
        here = strata == stratum
        names, places = np.unique(groups[here], return_inverse=True)
        order = np.arange(len(names))
        if len(names) > most:
            order = make_rng(0, "parts", len(names)).permutation(len(names)) % most
        parts[here] = len(owners) + order[places.reshape(-1)]
        owners += [number] * min(len(names), most)
    return torch.from_numpy(parts), np.asarray(owners, np.int64)


def _keys(keys: Sequence[str], side: int) -> list[str]:
    """Names stay; images that stand for themselves are told from those of another set."""
    return [f"\0{side}{key}" if key.startswith("\0") else key for key in keys]

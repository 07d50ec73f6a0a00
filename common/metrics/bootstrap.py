"""Confidence intervals over patients: slices of one patient, or of one generated volume, are not independent.

The influence of each patient on a statistic is found by leaving the patient out (jackknife; Arvesen 1969
shows it for U-statistics such as KID). The interval is Student's over these influences. Each side is widened
to the bootstrap-t (Efron & Tibshirani 1993, chapter 12) where that reaches farther, as it does for skewed
values. ``tests/simulations/coverage.py`` measures how often such intervals hold the truth.
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
"""Fewest patients with an interval."""
FEW = 10
"""Fewest patients without a warning in a report."""
FEWEST_DRAWN = 4
"""Fewest patients for the bootstrap-t; of three, one draw in nine is a single patient three times."""
MOST_PARTS = 50
"""Most patients that are left out one by one; more patients are left out in this many parts."""


@dataclass(frozen=True)
class Value:
    """A metric's value over ``n`` images with its 95 % interval.

    Attributes:
        mean: NaN if there are no images or one of them gives NaN.
        low, high: NaN if there is no interval, as with fewer than three patients.
        n: number of images.
        patients: number of patients, of two sets the smaller; None if images are independent.
        p_zero: two-sided p-value of Student's test that the true value is 0; NaN if there is no interval. For
            differences, see `common.metrics.downstream.holm`.

    Example:
        >>> value = Value(0.5, 0.4, 0.6, n=20, patients=10)
        >>> value.text(), value.plain()["interval"]
        ('0.5 [0.4, 0.6]', [0.4, 0.6])
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
        """Returns the same value with an interval that does not go below ``bound``."""
        return self.within(bound, math.inf)

    def within(self, lowest: float, highest: float) -> Value:
        """Returns the same value with an interval clipped to bounds, such as 0 and 1 for a share."""
        if not self.bounded:
            return self
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))

    def plain(self) -> dict[str, Any]:
        """Formats the value for JSON: ``{"mean", "interval", "n", "patients"}`` with None instead of NaN."""
        interval = [float(self.low), float(self.high)] if self.bounded else None
        mean = float(self.mean) if math.isfinite(self.mean) else None
        return {"mean": mean, "interval": interval, "n": self.n, "patients": self.patients}

    def text(self, form: str = ".3g") -> str:
        """Formats the value for a sentence: ``0.5 [0.4, 0.6]``, without brackets if there is no interval."""
        ends = f" [{self.low:{form}}, {self.high:{form}}]" if self.bounded else ""
        return f"{self.mean:{form}}{ends}"


def few_patients(patients: int | None) -> str | None:
    """Warns in one line of fewer than ten patients; None for more.

    Example:
        >>> few_patients(9), few_patients(10)
        ('only 9 patients: intervals are wide, and such few may not stand for others', None)
    """
    if patients is None or patients >= FEW:
        return None
    one = "patient" if patients == 1 else "patients"
    if patients < FEWEST:
        return f"only {patients} {one}: no intervals, and no word about others; {FEW} or more are needed"
    return f"only {patients} {one}: intervals are wide, and such few may not stand for others"


class Resamples:
    """Computes statistics of a set of images with their intervals over patients.

    Args:
        counts: how often each image is drawn in each resample (R, N), see `resample_counts`.
        patients: one id per image; None for independent images.

    Attributes:
        patients: number of patients; None if images are independent.
        parts: (N,) the part of the set that each image is left out with, 0..P-1.
        stratum_of_part: (P,) the sample that each part belongs to; samples were drawn independently.
        groups: (N,) the number of each image's patient.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> resamples = Resamples.draw(["a", "a", "b", "b", "c", "c"], 6, 200, rng)
        >>> value = resamples.mean(torch.tensor([1.0, 1.0, 2.0, 2.0, 6.0, 6.0], dtype=torch.float64))
        >>> value.patients, value.text(".1f")
        (3, '3.0 [-3.6, 9.6]')
    """

    def __init__(self, counts: Tensor, patients: Sequence[str] | None = None) -> None:
        length = counts.shape[1]
        keys = [f"\0{index}" for index in range(length)] if patients is None else list(patients)
        known = None if patients is None else len(set(keys))
        self._set(counts, keys, np.zeros(length, np.int64), known)

    def _set(self, counts: Tensor, keys: list[str], strata: np.ndarray, patients: int | None) -> Resamples:
        self.counts, self.keys, self.strata, self.patients = counts, keys, strata, patients
        self.groups = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)[1].reshape(-1)
        self.parts, self.stratum_of_part = _parts(self.groups, strata, MOST_PARTS)
        return self

    @classmethod
    def draw(
        cls, patients: Sequence[str] | None, length: int, resamples: int, rng: np.random.Generator
    ) -> Resamples:
        """Draws resamples of ``length`` images; arguments as of `resample_counts`."""
        return cls(resample_counts(patients, length, resamples, rng), patients)

    def subset(self, usable: Tensor) -> Resamples:
        """Returns the same resamples of the images for which ``usable`` (N,) bool holds."""
        indices = usable.nonzero()[:, 0].tolist()
        keys = [self.keys[index] for index in indices]
        known = None if self.patients is None else len(set(keys))
        return _empty()._set(self.counts[:, usable], keys, self.strata[indices], known)

    def join(self, others: Resamples) -> Resamples:
        """This set's images (N) followed by the others' (M), as one set.

        Sets without common patients were drawn independently: their errors add up. A patient of both sets is
        left out of both at once.
        """
        first, second = (_unique_keys(each.keys, side) for side, each in enumerate((self, others)))
        strata = np.concatenate([self.strata, others.strata + self.strata.max(initial=-1) + 1])
        split = len(first)
        here = dict(zip(first, strata[:split], strict=True))
        there = dict(zip(second, strata[split:], strict=True))
        for ends in {(here[key], there[key]) for key in here.keys() & there.keys()}:
            strata[strata == max(ends)] = min(ends)
        counts = torch.cat([self.counts, others.counts], dim=1)  # (R, N + M)
        known = [each for each in (self.patients, others.patients) if each is not None]
        return _empty()._set(counts, [*first, *second], strata, min(known) if known else None)

    def mean(self, values: Tensor) -> Value:
        """Computes the mean of one value per image (N,) float64."""
        parts = torch.stack([values, torch.ones_like(values)], dim=1)  # (N, 2)
        return self.ratio(parts, lambda sums: float(sums[0] / sums[1]))

    def share(self, values: Tensor) -> Value:
        """Computes the mean of one value per image (N,) in [0, 1], mostly 0 or 1.

        If nearly all patients agree, their variance says little and Student's interval is far too short. This
        one is Clopper and Pearson's for the number of independent images that has the patients' variance
        (Korn & Graubard 1998), or for the number of patients if all of them agree.
        """
        value = self.mean(values)
        if not value.bounded or not len(values):
            return value
        strata, (mean, images) = self.stratum_of_part, (value.mean, len(values))
        without = torch.stack([(values * (self.parts != part)).sum() for part in range(len(strata))])
        counts = torch.stack([(self.parts != part).sum() for part in range(len(strata))])
        (influence,) = _influences(mean, (without / counts).numpy(), strata)
        variance = float(influence.var(ddof=1)) / len(influence)
        effective = float(len(set(self.keys)))
        if variance > 0 and 0 < mean < 1:
            reach = [stats.t.ppf((1 + LEVEL) / 2, size - 1) for size in (images, len(influence))]
            effective = min(mean * (1 - mean) / variance * (reach[0] / reach[1]) ** 2, float(images))
        low, high = clopper_pearson(mean * effective, effective)
        return replace(value, low=low, high=high)

    def ratio(self, parts: Tensor, statistic: Callable[[Tensor], float]) -> Value:
        """Computes a function of sums over images, such as a ratio of means.

        Args:
            parts: what each image adds to the sums, (N, ...) float64.
            statistic: called with the sums (...).
        """
        sums = torch.zeros(len(self.stratum_of_part), *parts.shape[1:], dtype=torch.float64)
        sums.index_add_(0, self.parts, parts.double())  # (P, ...)
        return self.by_parts(lambda weights: statistic(torch.tensordot(weights, sums, dims=1)))

    def distance(self, statistic: Callable[[Tensor], float], most: int | None = None) -> Value:
        """Computes any smooth statistic of how often each image counts (N,).

        Args:
            most: largest number of parts that are left out, for a statistic that is slow.
        """
        parts, strata = self.parts, self.stratum_of_part
        if most is not None and most < MOST_PARTS:
            parts, strata = _parts(self.groups, self.strata, most)
        return self._value(lambda weights: statistic(weights[parts]), strata)

    def by_parts(self, statistic: Callable[[Tensor], float]) -> Value:
        """Computes any smooth statistic of how often each of the ``parts`` counts (P,)."""
        return self._value(statistic, self.stratum_of_part)

    def percentile(self, statistic: Callable[[Tensor], float]) -> Value:
        """Computes a statistic with jumps, such as a median, with `percentile_interval`.

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
        """Computes a ratio of two uncertain numbers with Fieller's (1954) interval.

        The interval holds all ratios that the two numbers do not rule out. There is none if they do not rule
        out a denominator of 0. The value is NaN unless the denominator is above 0.

        Args:
            statistic: numerator and denominator as a function of how often each of the ``parts`` counts (P,).
        """
        images, strata = self.counts.shape[1], self.stratum_of_part
        once = np.asarray(statistic(torch.ones(len(strata), dtype=torch.float64)))  # (2,)
        value = float(once[0] / once[1]) if once[1] > 0 else math.nan
        none = Value(value, math.nan, math.nan, images, self.patients)
        if not math.isfinite(value) or self._too_few(strata):
            return none
        without = np.asarray([statistic(weights) for weights in _leave_one_out(len(strata))])
        ends = fieller_interval(once, _influences(once, without, strata))
        return none if ends is None else replace(none, low=ends[0], high=ends[1])

    def _value(self, statistic: Callable[[Tensor], float], strata: np.ndarray) -> Value:
        images = self.counts.shape[1]
        if not images:
            return Value(math.nan, math.nan, math.nan, 0, self.patients)
        value = statistic(torch.ones(len(strata), dtype=torch.float64))
        none = Value(value, math.nan, math.nan, images, self.patients)
        if self._too_few(strata) or not math.isfinite(value):
            return none
        without = np.asarray([statistic(weights) for weights in _leave_one_out(len(strata))])
        if not np.isfinite(without).all():
            return none
        influences = _influences(value, without, strata)
        low, high = t_interval(value, influences, len(self.counts))
        return replace(none, low=low, high=high, p_zero=p_of_zero(value, influences))

    def _too_few(self, strata: np.ndarray) -> bool:
        fewest = int(np.bincount(strata).min()) if len(strata) else 0
        return fewest < 2 or (self.patients is not None and self.patients < FEWEST)


def _empty() -> Resamples:
    return Resamples.__new__(Resamples)


def resample_counts(
    patients: Sequence[str] | None, length: int, resamples: int, rng: np.random.Generator
) -> Tensor:
    """Draws how often each image counts in each resample: (resamples, length) float64.

    As many whole patients as there are are drawn with replacement (cluster bootstrap); without patients
    images are drawn.

    Args:
        patients: one id per image, or None.

    Example:
        >>> counts = resample_counts(["a", "a", "b"], 3, 100, np.random.default_rng(0))
        >>> bool((counts[:, 0] == counts[:, 1]).all()), (counts[:, 0] + counts[:, 2]).unique().tolist()
        (True, [2.0])
    """
    groups = np.arange(length)
    if patients is not None:
        groups = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)[1].reshape(-1)
    clusters = int(groups.max()) + 1 if length else 0
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / max(clusters, 1)), size=resamples)
    return torch.from_numpy(drawn[:, groups].astype(np.float64))  # (R, clusters) -> (R, length)


def percentile_interval(
    statistic: Callable[[Tensor], float], rows: Tensor, patients: int | None = None
) -> tuple[float, float]:
    """Computes the percentile interval of ``statistic(row)`` over the resamples.

    A row is one resample: how often each image is drawn (N,), or sums over the drawn images. Resamples for
    which the statistic is NaN (no lesion drawn) are left out.

    Args:
        patients: number of patients that were drawn; the interval is expanded for few of them (Hesterberg
            2015, What teachers should know about the bootstrap, section 5.3) and NaN for fewer than three.

    Example:
        >>> [round(end, 1) for end in percentile_interval(float, torch.arange(101.0))]
        [2.5, 97.5]
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
    """Computes the exact interval of a share; unlike `scipy.stats.binomtest` it takes fractions of trials.

    Example:
        >>> [round(end, 3) for end in clopper_pearson(5, 5)]  # (1 - 0.95) / 2 = low ** 5
        [0.478, 1.0]
    """
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def t_interval(value: float, influences: Sequence[np.ndarray], resamples: int) -> tuple[float, float]:
    """Student's interval, on each side widened to the bootstrap-t where that reaches farther.

    Args:
        influences: for each independent sample, how its G patients move the value: (G,) with mean 0. The
            variance of the value is the sum of the variances of the samples' means.
        resamples: of the bootstrap-t.
    """
    error, freedom = _standard_error(influences)
    if error <= 1e-12 * max(abs(value), 1e-300):
        return value, value
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    low, high = value - reach, value + reach
    if min(len(influence) for influence in influences) >= FEWEST_DRAWN:
        least, most = _bootstrap_t(influences, error, resamples)
        low, high = min(low, value - most * error), max(high, value - least * error)
    return low, high


def p_of_zero(value: float, influences: Sequence[np.ndarray]) -> float:
    """The two-sided p-value of Student's test of a value against 0; ``influences`` as of `t_interval`."""
    error, freedom = _standard_error(influences)
    if error <= 1e-12 * max(abs(value), 1e-300):
        return 0.0 if value else 1.0
    return float(2 * stats.t.sf(abs(value) / error, freedom))


def fieller_interval(once: np.ndarray, influences: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Computes the ratios n / d with |n - ratio d| within Student's reach of its error; None if unbounded.

    Args:
        once: n and d (2,).
        influences: as of `t_interval`, (G, 2) each.
    """
    line = np.array([1.0, -once[0] / once[1]])
    _, freedom = _standard_error([influence @ line for influence in influences])
    covariance = sum(np.cov(influence.T) / len(influence) for influence in influences)  # (2, 2)
    squared = np.outer(once, once) - stats.t.ppf((1 + LEVEL) / 2, freedom) ** 2 * covariance
    if squared[1, 1] <= 0:
        return None
    root = math.sqrt(max(squared[0, 1] ** 2 - squared[0, 0] * squared[1, 1], 0.0))
    return float((squared[0, 1] - root) / squared[1, 1]), float((squared[0, 1] + root) / squared[1, 1])


def _standard_error(influences: Sequence[np.ndarray]) -> tuple[float, float]:
    """The standard error of a value and Welch's degrees of freedom; ``influences`` as of `t_interval`."""
    sizes = [len(influence) for influence in influences]
    variances = [float(each.var(ddof=1)) / size for each, size in zip(influences, sizes, strict=True)]
    total = sum(variances)
    below = sum(each**2 / (size - 1) for each, size in zip(variances, sizes, strict=True))
    return math.sqrt(total), total**2 / below if below > 0 else min(sizes) - 1


def _bootstrap_t(influences: Sequence[np.ndarray], error: float, resamples: int) -> tuple[float, float]:
    """The ends of the bootstrap's (mean - true mean) / error; 0, which widens nothing, where infinite."""
    moved, squared = np.zeros(resamples), np.zeros(resamples)
    for index, influence in enumerate(influences):
        count = len(influence)
        rng = make_rng(0, "bootstrap-t", index, count)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)  # (R, G)
        mean = drawn @ influence / count
        moved += mean
        squared += np.maximum(drawn @ influence**2 / count - mean**2, 0) / (count - 1)
    single = squared <= (1e-6 * error) ** 2  # one patient throughout: no variance to divide by
    ratios = np.where(single, np.copysign(np.inf, moved), moved / np.sqrt(np.where(single, 1, squared)))
    rank = int((1 - LEVEL) / 2 * resamples)
    least, most = (float(np.sort(ratios)[index]) for index in (rank, resamples - 1 - rank))
    return (least if math.isfinite(least) else 0.0), (most if math.isfinite(most) else 0.0)


def _influences(once: float | np.ndarray, without: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    """By sample: the influence of each part, as the jackknife's pseudo-values minus their mean."""
    result = []
    for stratum in range(int(strata.max()) + 1):
        values = (int((strata == stratum).sum()) - 1) * (once - without[strata == stratum])
        result.append(values - values.mean(0))
    return result


def _leave_one_out(parts: int) -> list[Tensor]:
    """Lists the weights (P,) of all parts but one, for each part."""
    return list(torch.ones(parts, parts, dtype=torch.float64).fill_diagonal_(0))


def _parts(groups: np.ndarray, strata: np.ndarray, most: int) -> tuple[Tensor, np.ndarray]:
    """Each image's part (N,) and each part's sample (P,): a part per patient, but ``most`` at most."""
    parts = np.zeros(len(groups), np.int64)
    owners: list[int] = []
    for number, stratum in enumerate(np.unique(strata)):
        here = strata == stratum
        names, indices = np.unique(groups[here], return_inverse=True)
        order = np.arange(len(names))
        if len(names) > most:
            order = make_rng(0, "parts", len(names)).permutation(len(names)) % most
        parts[here] = len(owners) + order[indices.reshape(-1)]
        owners += [number] * min(len(names), most)
    return torch.from_numpy(parts), np.asarray(owners, np.int64)


def _unique_keys(keys: Sequence[str], side: int) -> list[str]:
    """Patients keep their names; independent images of two sets get different keys."""
    return [f"\0{side}{key}" if key.startswith("\0") else key for key in keys]

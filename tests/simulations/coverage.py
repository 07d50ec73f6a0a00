"""How often the intervals hold the truth, beside their nominal 95 %: a table for the docs.

Each trial draws patients from a distribution whose truth is known, and some slices of each. For all numbers
of patients, in about five minutes on one core::

    python -m tests.simulations.coverage --trials 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.fid import fid
from common.metrics.kid import FeatureSet, KernelDistances, kid, kid_with_interval
from common.metrics.prdc import prdc

PATIENTS = (3, 5, 10, 20, 50)
SLICES = 6
GENERATED = 60
DIMENSION = 12
Trial = Callable[[int, np.random.Generator], tuple[Value, float]]


def over(patients: Sequence[str] | None, length: int, numbers: np.random.Generator) -> Resamples:
    """With as many resamples as evaluations take by default."""
    return Resamples.draw(patients, length, 1000, numbers)


def names(patients: int, prefix: str) -> list[str]:
    """One id a slice."""
    return [f"{prefix}{index // SLICES}" for index in range(patients * SLICES)]


def mean_of(draw: Callable[[np.random.Generator, int], np.ndarray], truth: float) -> Trial:
    """Of a value a patient, with a little scatter between slices."""

    def trial(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
        values = np.repeat(draw(numbers, patients), SLICES) + numbers.normal(0, 0.1, patients * SLICES)
        drawn = over(names(patients, "p"), len(values), numbers)
        return drawn.mean(torch.from_numpy(values)), truth

    return trial


def pooled_ratio(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
    """A ratio of sums, as of a Dice overlap: patients of 1 to 12 slices, a skewed share of each found."""
    counts = numbers.integers(1, 13, patients)
    owners = np.repeat(np.arange(patients), counts)
    share = numbers.beta(1, 3, patients)[owners]
    size = numbers.gamma(2, 1, patients)[owners]
    parts = torch.from_numpy(np.stack([size * share, size], axis=1))
    drawn = over([str(owner) for owner in owners], len(owners), numbers)
    return drawn.ratio(parts, lambda sums: float(sums[0] / sums[1])), 0.25


def features(
    patients: int, numbers: np.random.Generator, shift: float = 0.0, slices: int = SLICES, spread: float = 1.0
) -> Tensor:
    """Slices scatter half as much around their patient as patients do: (patients * slices, D)."""
    centres = numbers.standard_normal((patients, 1, DIMENSION)) * spread
    scatter = 0.5 * numbers.standard_normal((patients, slices, DIMENSION))
    return torch.from_numpy((centres + scatter + shift).reshape(-1, DIMENSION)).float()


@cache
def true_kid(shift: float) -> float:
    """Of as good as infinitely many patients."""
    numbers = np.random.default_rng(99)
    pairs = [(features(1000, numbers, 0, 1), features(1000, numbers, shift, 1)) for _ in range(16)]
    return float(np.mean([kid(*pair) for pair in pairs])) if shift else 0.0


def kernel_distance(shift: float) -> Trial:
    """KID of independent generated images against patients' slices."""

    def trial(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
        real, fake = features(patients, numbers), features(GENERATED, numbers, shift, 1)
        owners = names(patients, "p")
        both = over(owners, len(real), numbers).join(over(None, len(fake), numbers))
        return kid_with_interval(real, fake, (owners, None), both), true_kid(shift)

    return trial


def excess_kid(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
    """Generated images that are shifted by half of what blurring shifts, against as many other patients."""
    real, others = features(patients, numbers), features(patients, numbers)
    owners, strangers = names(patients, "p"), names(patients, "q")
    fake = features(GENERATED, numbers, 0.4, 1)
    distances = KernelDistances(
        FeatureSet(real, owners, over(owners, len(real), numbers)),
        FeatureSet(others, strangers, over(strangers, len(others), numbers)),
        real + 0.8,
    )
    found = distances(FeatureSet(fake, None, over(None, len(fake), numbers)))["excess_kid"]
    return found, true_kid(0.4) / true_kid(0.8)


def frechet(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
    """FID's expectation at this number of patients: its bias is a property of the number."""
    real, fake = features(patients, numbers), features(GENERATED, numbers, 0.4, 1)
    both = over(names(patients, "p"), len(real), numbers).join(over(None, len(fake), numbers))
    split = len(real)
    found = both.distance(lambda w: fid(real, fake, w[:split], w[split:]))
    return found, expected_fid(patients)


@cache
def expected_fid(patients: int) -> float:
    """Of sets as `frechet` draws them."""
    numbers = np.random.default_rng(98)
    sets = [(features(patients, numbers), features(GENERATED, numbers, 0.4, 1)) for _ in range(400)]
    return float(np.mean([fid(real, fake, None, None) for real, fake in sets]))


def recall(patients: int, numbers: np.random.Generator) -> tuple[Value, float]:
    """The share of real patients' slices that one and the same generated set reaches."""
    real, owners = features(patients, numbers), names(patients, "p")
    found = prdc(real, fixed_set(), patients=(owners, None)).intervals(
        over(owners, len(real), numbers), over(None, GENERATED, numbers)
    )
    return found["recall"], true_recall()


@cache
def fixed_set() -> Tensor:
    """A generated set of too little variety."""
    return features(GENERATED, np.random.default_rng(97), 0.0, 1, 0.9)


@cache
def true_recall() -> float:
    """Of as good as infinitely many patients."""
    real = features(1000, np.random.default_rng(96))
    return prdc(real, fixed_set(), patients=(names(1000, "p"), None)).means()["recall"]


STATISTICS: dict[str, Trial] = {
    "mean, normal": mean_of(lambda numbers, count: numbers.normal(0, 1, count), 0.0),
    "mean, exponential": mean_of(lambda numbers, count: numbers.exponential(1, count), 1.0),
    "mean, log-normal (0.75)": mean_of(
        lambda numbers, count: numbers.lognormal(0, 0.75, count), float(np.exp(0.75**2 / 2))
    ),
    "mean, beta (1/2, 2)": mean_of(lambda numbers, count: numbers.beta(0.5, 2, count), 0.2),
    "pooled ratio": pooled_ratio,
    "recall": recall,
    "KID, truth 0": kernel_distance(0.0),
    "KID, truth > 0": kernel_distance(0.4),
    "excess KID": excess_kid,
    "FID (at this number)": frechet,
}


def coverage(trial: Trial, patients: int, trials: int, seed: int = 0) -> tuple[float, float]:
    """The share of intervals that hold the truth, and the share of trials that have an interval."""
    held = []
    for number in range(trials):
        value, truth = trial(patients, np.random.default_rng([seed, patients, number]))
        if value.bounded:
            held.append(value.low <= truth <= value.high)
    return (float(np.mean(held)) if held else float("nan")), len(held) / trials


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=list(STATISTICS), help="names of statistics")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| nominal 95 %; patients | {' | '.join(map(str, PATIENTS))} |")
    print("|---|" + "---|" * len(PATIENTS))
    for name in options.only:
        cells = []
        for patients in PATIENTS:
            held, some = coverage(STATISTICS[name], patients, options.trials)
            cells.append(f"{held:.2f}" + (f" ({100 * some:.0f} % have one)" if some < 0.995 else ""))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

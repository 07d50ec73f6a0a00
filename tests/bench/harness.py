"""Benchmarks: ours against a plain baseline, measured in turns in one run, medians compared.

A benchmark is a function without arguments that gives a `Result`, registered under its name::

    @benchmark("name")
    def name() -> Result:
        ours, baseline = alternate(lambda: seconds(fast), lambda: seconds(plain), n=5)
        return Result("name", ratio=baseline / ours, goal=2.0, ours=ours, baseline=baseline, unit="s", n=5)
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError

Measure = Callable[[], float]
Work = Callable[[], None]


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        ratio: how many times better than the baseline; at least ``goal`` is wanted.
        ours, baseline: medians of ``n`` measurements each, in ``unit``.
    """

    name: str
    ratio: float
    goal: float
    ours: float
    baseline: float
    unit: str
    n: int


class NotMeasurable(Exception):
    """This machine lacks what the benchmark is about; the message says what."""


BENCHMARKS: dict[str, Callable[[], Result]] = {}


def benchmark(name: str) -> Callable[[Callable[[], Result]], Callable[[], Result]]:
    """Registers the decorated function under ``name``."""

    def register(function: Callable[[], Result]) -> Callable[[], Result]:
        BENCHMARKS[name] = function
        return function

    return register


def alternate(ours: Measure, baseline: Measure, n: int = 5) -> tuple[float, float]:
    """The medians of ``n`` measurements of each, taken in turns so that the machine's moods hit both alike.

    Args:
        ours, baseline: each call measures once, e.g. ``lambda: seconds(work)``.
        n: at least 5.
    """
    if n < 5:
        raise ValueError(f"{n} measurements are too few for a median; take at least 5")
    pairs = [(ours(), baseline()) for _ in range(n)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def seconds(work: Work) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def extra_megabytes(prepare: Callable[[], Work]) -> float:
    """The peak memory of ``prepare()()`` above what the process held after ``prepare()``, in MB (10^6 bytes).

    Runs in a new process of its own, so that nothing held or freed before counts.

    Args:
        prepare: a picklable function; makes the inputs, warms up, and gives the work to measure.
    Raises:
        UserError: not on Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("memory is measured through /proc/self, which only Linux has")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_extra_megabytes_here, prepare).result()


def _extra_megabytes_here(prepare: Callable[[], Work]) -> float:
    work = prepare()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (man 5 proc)
    held = _kilobytes("VmRSS")
    work()
    return (_kilobytes("VmHWM") - held) * 1024 / 1e6


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

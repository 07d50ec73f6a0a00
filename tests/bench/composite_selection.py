"""Choosing a million of 2.5 million composites on geometry alone: 5 000 groups x 500 slices of 256 x 256."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import distance_transform_edt

from bundles.lung_two_stage.composition.plan import PlanSettings, draw_groups, make_plan, measure_nodules
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from tests.bench.composite_banks import SPACING_MM, healthy_slices, nodules
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds

NORMALS, NODULES, RULES = 500, 1200, PlanSettings(count=1_000_000)
COMBINATIONS, LOOPED = NORMALS * RULES.groups, 300
MOST_SECONDS, MOST_MEGABYTES, REPEATS = 60.0, 2000.0, 5
PRESENCE = PresenceMap.from_points(())


@benchmark("select_composites")
def select_composites() -> Result:
    """Seconds for the whole plan, distance transforms included, on one core; the goal is a minute."""
    ours, _ = times()
    return Result("select_composites", MOST_SECONDS / ours, 1.0, ours, MOST_SECONDS, "s", REPEATS)


@benchmark("select_composites_loop")
def select_composites_loop() -> Result:
    """The same against a plain loop over combinations, which is timed on 300 of them and scaled up.

    The loop has one slice only, so that its distance transform and probabilities are at hand.
    """
    ours, loop = times()
    return Result("select_composites_loop", loop / ours, 20.0, ours, loop, "s", REPEATS)


@benchmark("select_composites_memory")
def select_composites_memory() -> Result:
    """Peak memory beyond the banks, MB."""
    ours = extra_megabytes(planning)
    return Result("select_composites_memory", MOST_MEGABYTES / ours, 1.0, ours, MOST_MEGABYTES, "MB", 1)


@cache
def times() -> tuple[float, float]:
    """Median seconds of our plan and of the loop, scaled to all combinations."""
    ours, loop = planning(), looping()
    loop()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(loop), REPEATS)
    return fast, slow * COMBINATIONS / LOOPED


def planning() -> Work:
    """The plan of the million."""
    bank, slices = nodules(NODULES), healthy_slices(NORMALS)

    def work() -> None:
        plan, stats = make_plan(bank, slices, PRESENCE, RULES)
        assert len(plan) == RULES.count and stats.combinations == COMBINATIONS

    return work


def looping() -> Work:
    """As one would write it: for every combination and nodule, draw a place until it fits."""
    slices, geometry = healthy_slices(1), measure_nodules(nodules(NODULES))
    groups = draw_groups(0, LOOPED, geometry.usable, RULES.most_nodules)
    lung = slices.lung[0]
    depth = distance_transform_edt(lung > 0).ravel() * SPACING_MM
    pixels = np.flatnonzero(lung)
    chances = PRESENCE.on_slice(lung).ravel()[pixels].astype(np.float64)
    chances /= chances.sum()
    width = lung.shape[1]

    def work() -> None:
        random, margins = np.random.default_rng(0), []
        for members in groups.members:
            placed: list[tuple[int, float]] = []
            for member in members[members >= 0]:
                radius = float(geometry.radii_mm[member])
                while True:
                    spot = int(random.choice(pixels, p=chances))
                    apart = all(
                        np.hypot(spot // width - p // width, spot % width - p % width) * SPACING_MM
                        >= r + radius
                        for p, r in placed
                    )
                    if depth[spot] >= radius and apart:
                        break
                placed.append((spot, radius))
            margins.append(min(depth[spot] - radius for spot, radius in placed))
        sorted(range(len(margins)), key=margins.__getitem__)[-len(margins) * 2 // 5 :]

    return work

"""One candidate for each thing that was seen several times: in neighbouring slices or at near points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.metrics.froc import Candidate


def merge_candidates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Greedy: the surest candidate takes in all whose centre lies within the larger of the two radii.

    What it takes in moves its centre to their mean, weighted by score; its score and radius stay.

    Args:
        candidates: of one scan, scores of at least 0.
    """
    order = sorted(range(len(candidates)), key=lambda place: -candidates[place].score)
    points = np.array([candidate.position_mm for candidate in candidates]).reshape(-1, 3)
    radii = np.array([candidate.radius_mm for candidate in candidates])
    scores = np.array([candidate.score for candidate in candidates])
    free, merged = np.ones(len(candidates), bool), []
    for place in order:
        if not free[place]:
            continue
        near = np.linalg.norm(points - points[place], axis=1) <= np.maximum(radii, radii[place])
        near &= free
        free &= ~near
        centre = np.average(points[near], axis=0, weights=scores[near] + 1e-9)  # all may score 0
        x, y, z = (float(value) for value in centre)
        merged.append(replace(candidates[place], position_mm=(x, y, z)))
    return merged

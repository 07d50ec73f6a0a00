"""Privacy: does the synthetic set give away whose images the model was trained on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.features import FeatureExtractor
from common.random import generator
from common.trust.distances import PIXELS, Distances, distances, spaces, told
from common.trust.findings import AS_REAL, LOWER, Figure, Section
from common.trust.gate import LEVEL, Gate, release_gate, similarities
from common.trust.membership import CHANCE, membership
from common.trust.privacy_pictures import copies_picture, distance_plots, roc_plot
from common.trust.privacy_words import statement, warnings
from common.trust.sets import Sets

RESAMPLES = 500
REAL_REAL, CHANCE_NAME = "real_real", "chance"
NOTES = {
    "distance": "Median distance to the nearest training image as a multiple of the held-out images'.",
    "copies": f"Share of images as near to a training image as the nearest {100 * LEVEL:.0f} % of others.",
    "membership_auc": "Chance that a training image is nearer to the synthetic ones than a held-out one.",
}


def privacy(
    sets: Sets,
    extractor: FeatureExtractor,
    seed: int = 0,
    max_similarity: float | None = None,
    resamples: int = RESAMPLES,
    device: torch.device | str = "cpu",
) -> tuple[Section, Gate]:
    """The section and the release gate's answer.

    ``sets.real`` must be what the model was trained on, or nothing can be said of copies. In both spaces,
    pixels and features, flips and quarter turns do not count, in pixels small shifts neither. ``real_real``
    are the held-out images.

    Args:
        extractor: on ``device`` already; each image is shown to it in eight orientations.
        resamples: of the bootstrap, over patients where several are known.
        max_similarity: see `common.trust.gate.release_gate`.
    Raises:
        UserError: ``max_similarity`` is no correlation.
    """
    found = {name: distances(sets, space) for name, space in spaces(sets, extractor, device).items()}
    pixels = found[PIXELS]
    similar = similarities(sets.synthetic.images, pixels.synthetic)
    usual = similarities(sets.heldout.images, pixels.heldout)
    gate = release_gate(similar, usual, pixels.synthetic.indices.tolist(), max_similarity)
    figures = [
        figure for name, each in found.items() for figure in _figures(name, each, sets, seed, resamples)
    ]
    section = Section(
        "privacy",
        "Privacy",
        statement(gate, figures),
        figures,
        [*distance_plots(found), roc_plot(found)],
        copies_picture(sets, gate, found),
        warnings(sets, usual, gate),
        {
            "gate": _plain(gate, sets),
            "usual_similarity": float(usual.median()),
            "copies_looked_for": told(sets),
        },
    )
    return section, gate


def _figures(space: str, found: Distances, sets: Sets, seed: int, resamples: int) -> list[Figure]:
    drawn = [
        Resamples.over(ids, length, resamples, generator(seed, "privacy", side))
        for side, (ids, length) in enumerate(
            ((sets.synthetic.volumes, len(sets.synthetic)), (sets.heldout.patients, len(sets.heldout)))
        )
    ]
    synthetic, heldout = found.synthetic.distances, found.heldout.distances
    near = heldout.quantile(LEVEL)
    patients = sets.real.patients, sets.heldout.patients
    attack = membership(found.members.distances, found.others.distances, patients, seed, resamples)
    extractor = "" if space == PIXELS else space
    one, half = Value(1.0, 1.0, 1.0, len(heldout)), Value(CHANCE, CHANCE, CHANCE, attack.n)
    measured: dict[str, tuple[Value, str, Mapping[str, Value]]] = {
        "distance": (_ratio(synthetic, heldout, drawn[0].beside(drawn[1])), AS_REAL, {REAL_REAL: one}),
        "copies": (
            drawn[0].mean((synthetic < near).double()),
            LOWER,
            {REAL_REAL: drawn[1].mean((heldout < near).double())},
        ),
        "membership_auc": (attack, LOWER, {CHANCE_NAME: half}),
    }
    return [
        Figure(f"{name}_{space}", value, better, beside, extractor, seed, NOTES[name])
        for name, (value, better, beside) in measured.items()
    ]


def _ratio(synthetic: Tensor, heldout: Tensor, both: Resamples) -> Value:
    """The medians' ratio, with its interval."""
    split = len(synthetic)

    def ratio(weights: Tensor) -> float:
        usual = _median(heldout, weights[split:])
        return _median(synthetic, weights[:split]) / max(usual, torch.finfo(torch.float64).tiny)

    return replace(both.percentile(ratio), n=split)


def _median(values: Tensor, weights: Tensor) -> float:
    """Of values (N,) that count ``weights`` times: the smallest that half of them do not exceed."""
    ordered, order = values.sort()
    shares = weights[order].cumsum(0) / weights.sum()
    return float(ordered[int((shares < 0.5).sum())])


def _plain(gate: Gate, sets: Sets) -> dict[str, object]:
    return {
        "open": gate.open,
        "threshold": gate.threshold,
        "calibrated": gate.calibrated,
        "p_value": gate.p_value if gate.calibrated else None,
        "reason": gate.reason,
        "flagged": flagged_rows(gate, sets),
    }


def flagged_rows(gate: Gate, sets: Sets) -> Sequence[dict[str, object]]:
    """The flagged images, the most similar first, each with its nearest training image."""
    return [
        {
            "image": sets.synthetic.names[place],
            "nearest": sets.real.names[gate.nearest[place]],
            "similarity": round(gate.similarities[place], 4),
        }
        for place in gate.flagged
    ]

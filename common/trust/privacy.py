"""Privacy: does the synthetic set give away whose images the model was trained on?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.features import FeatureExtractor, extract
from common.metrics.pixels import pattern_vectors
from common.random import generator
from common.trust.copies import Copies, find_copies
from common.trust.distances import PIXELS, Distances, distances, pixel_distances, turned_features
from common.trust.findings import AS_REAL, LOWER, Figure, Section
from common.trust.gate import Gate, release_gate, similarities
from common.trust.membership import CHANCE, membership
from common.trust.orientations import WAYS, Found, turned
from common.trust.privacy_pictures import copies_picture, distance_plots, roc_plot
from common.trust.privacy_words import statement, warnings
from common.trust.sets import Sets
from common.trust.shift import domain_shift

RESAMPLES = 500
REAL_REAL, CHANCE_NAME = "real_real", "chance"
MANY = 1000
"""Patients on either side, with fewer of whom nothing is said of 0.1 %."""
NOTES = {
    "distance": "Median distance to the nearest training image as a multiple of the held-out images'.",
    "copies": "Share of images outstandingly near to a training patient; beside it of sets without copies.",
    "membership_auc": "Chance that a training patient is nearer to the synthetic images than a held-out one.",
    "membership_tpr": "Share of training patients recognised where {} % of held-out ones are taken for such.",
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
        extractor: on ``device`` already; each real image is shown to it in eight orientations.
        resamples: of the bootstrap, over patients where several are known.
        max_similarity: see `common.trust.gate.release_gate`.
    Raises:
        UserError: ``max_similarity`` is no correlation.
    """
    count = len(sets.real)
    pool = turned_features(extractor, torch.cat([sets.real.images, sets.heldout.images]), device)
    moved = ((way, each[:count], each[count:]) for way, each in enumerate(pool))
    drawn = extract(extractor, sets.synthetic.images, device=device)
    found = {PIXELS: pixel_distances(sets), extractor.name: distances(drawn, pool[0][count:], moved)}
    copies = find_copies(sets, extractor, pool, seed, device)
    usual = similarities(sets.heldout.images, found[PIXELS].heldout)
    nearest = _nearest(sets, copies, found[PIXELS].synthetic, max_similarity is not None)
    similar = 1 - nearest.distances.square() / 2
    gate = release_gate(copies, similar, nearest.indices.tolist(), max_similarity, seed)
    ids = sets.real.patients, sets.heldout.patients
    shift = domain_shift(pool[0][:count], pool[0][count:], ids, seed)
    figures = [_copies(copies, sets.synthetic.volumes, seed, resamples)]
    for name, each in found.items():
        figures += _figures(name, each, sets, seed, resamples)
    section = Section(
        "privacy",
        "Privacy",
        statement(gate, figures),
        figures,
        [*distance_plots(found), roc_plot(found, sets)],
        copies_picture(sets, gate, copies, nearest, found),
        warnings(sets, usual, gate, shift),
        {
            "gate": _plain(gate, sets, copies),
            "usual_similarity": float(usual.median()),
            "copies_looked_for": copies.told,
            "planted_copies_found": dict(copies.noticed()),
            "domain_shift": {"times_usual": shift.ratio, "p_value": shift.p_value},
        },
    )
    return section, gate


def _nearest(sets: Sets, copies: Copies, pixels: Found, alone: bool) -> Found:
    """Each synthetic image's nearest training image, and how far that one is.

    It is the more similar one of those found by registration and by patterns; or, unless similarity
    ``alone`` counts, that which the image is outstandingly near to, which may be so in a half or by features.
    """
    found, images = copies.synthetic, sets.synthetic.images
    similar = similarities(images, pixels)
    registered = found.training > similar.clamp(min=0)
    similar = torch.where(registered, found.training, similar)
    indices = torch.where(registered, found.alike, pixels.indices)
    ways = torch.where(registered, found.alike_ways, pixels.ways)
    other = torch.zeros_like(registered) if alone else copies.hits(found)[0] & (found.images != indices)
    for place in other.nonzero().flatten().tolist():
        indices[place], ways[place] = found.images[place], found.ways[place]
        shown = turned(sets.real.images[indices[place]][None], WAYS[ways[place]])
        pair = pattern_vectors(torch.cat([images[place][None], shown])).double()
        similar[place] = float((pair[0] @ pair[1]).abs())
    return Found((2 - 2 * similar).clamp(min=0).sqrt(), indices, ways)


def _copies(copies: Copies, volumes: Sequence[str] | None, seed: int, resamples: int) -> Figure:
    """The share of flagged images; beside it that of held-out images and of the sets that are no copies."""

    def share(flagged: Tensor, patients: Sequence[str] | None, key: str) -> Value:
        drawn = Resamples.over(patients, len(flagged), resamples, generator(seed, "copies", key))
        return drawn.share(flagged.double())

    held = ~copies.trained[copies.owners]
    owners = [str(owner) for owner in copies.owners[held].tolist()]
    beside = {REAL_REAL: share(copies.hits(copies.reference)[0][held], owners, REAL_REAL)}
    beside |= {name: share(copies.hits(each)[0], None, name) for name, each in copies.harmless.items()}
    value = share(copies.hits(copies.synthetic)[0], volumes, "synthetic")
    return Figure("copies", value, LOWER, beside, "", seed, NOTES["copies"])


def _figures(space: str, found: Distances, sets: Sets, seed: int, resamples: int) -> list[Figure]:
    drawn = [
        Resamples.over(ids, length, resamples, generator(seed, "privacy", side))
        for side, (ids, length) in enumerate(
            ((sets.synthetic.volumes, len(sets.synthetic)), (sets.heldout.patients, len(sets.heldout)))
        )
    ]
    synthetic, heldout = found.synthetic.distances, found.heldout.distances
    ratio, one = _ratio(synthetic, heldout, drawn[0].beside(drawn[1])), Value(1.0, 1.0, 1.0, len(heldout))
    extractor = "" if space == PIXELS else space
    figures = [
        Figure(f"distance_{space}", ratio, AS_REAL, {REAL_REAL: one}, extractor, seed, NOTES["distance"])
    ]
    ids = sets.real.patients, sets.heldout.patients
    fewest = min(len(set(each)) for each in ids)
    attacks: dict[str, float | None] = {"auc": None, "tpr_at_1_percent": 0.01}
    if fewest > MANY:
        attacks["tpr_at_0.1_percent"] = 0.001
    for name, rate in attacks.items():
        value = membership(found.members.distances, found.others.distances, ids, seed, resamples, rate)
        chance = CHANCE if rate is None else rate
        note = NOTES["membership_auc"] if rate is None else NOTES["membership_tpr"].format(f"{100 * rate:g}")
        beside = {CHANCE_NAME: Value(chance, chance, chance, value.n)}
        figures.append(Figure(f"membership_{name}_{space}", value, LOWER, beside, extractor, seed, note))
    return figures


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


def _plain(gate: Gate, sets: Sets, copies: Copies) -> dict[str, object]:
    return {
        "verdict": gate.verdict,
        "open": gate.open,
        "threshold": gate.threshold,
        "calibrated": gate.calibrated,
        "p_value": gate.p_value if gate.calibrated else None,
        "smallest_share_noticed": gate.noticed if math.isfinite(gate.noticed) else None,
        "reason": gate.reason,
        "flagged": flagged_rows(gate, sets, copies.synthetic.views),
    }


def flagged_rows(gate: Gate, sets: Sets, views: Sequence[str]) -> Sequence[dict[str, object]]:
    """The flagged images, the most outstanding first, each with its nearest training image.

    Args:
        views: in which view each synthetic image is nearest.
    """
    return [
        {
            "image": sets.synthetic.names[place],
            "nearest": sets.real.names[gate.nearest[place]],
            "similarity": round(gate.similarities[place], 4),
            "score": round(gate.scores[place], 2),
            "view": views[place],
        }
        for place in gate.flagged
    ]

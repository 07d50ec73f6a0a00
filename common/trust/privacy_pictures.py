"""Plots and sheets for the question of privacy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.metrics.panel import unit_range
from common.trust.copies import Copies
from common.trust.distances import PIXELS, Distances
from common.trust.findings import Line, Picture, Plot
from common.trust.gate import Gate
from common.trust.membership import by_patient, roc
from common.trust.orientations import WAYS, Found, turned
from common.trust.sets import Sets
from common.trust.sheets import sheet_png

SHOWN = 8
BINS = 24
BEHIND = 1e6
"""Taken off the score of an image that is nearest to a held-out patient."""
CURVE = 200
"""Points of a curve at most: more cannot be seen."""


def copies_picture(
    sets: Sets, gate: Gate, copies: Copies, nearest: Found, found: Mapping[str, Distances]
) -> list[Picture]:
    """The synthetic images most outstandingly near to a training patient, beside the nearest training images.

    The training images are turned as they fit best, but not zoomed, shifted or rotated further.

    Args:
        nearest: of each synthetic image, by the gate's search.
        found: by each measure.
    """
    order = torch.tensor(_ordered(gate, copies))[:SHOWN]
    columns = [sets.synthetic.images[order], _nearest(sets.real.images, nearest, order)]
    columns += [_nearest(sets.real.images, each.synthetic, order) for each in found.values()]
    names = [
        f"{sets.synthetic.names[place]}: {gate.scores[place]:.1f} ({copies.synthetic.views[place]}), "
        f"similarity {gate.similarities[place]:.3f} to {sets.real.names[gate.nearest[place]]}"
        for place in order.tolist()
    ]
    titles = ("synthetic", "nearest training: gate", *(f"nearest training: {name}" for name in found))
    png = sheet_png([unit_range(column) for column in columns], titles, names)
    caption = (
        f"The {len(order)} synthetic images most outstandingly near to a training image, and the nearest "
        "training image by the gate's search and by each measure, turned as it fits best. Below each row how "
        "much nearer than usual the image is (0 is usual, of 95 % of real images below 1) and in which view. "
        f"{len(gate.flagged)} of {len(sets.synthetic)} images exceed {gate.threshold:.3g}."
    )
    return [Picture("Synthetic images beside their nearest training images", caption, png)]


def _ordered(gate: Gate, copies: Copies) -> list[int]:
    """All synthetic images, those first that are nearest to a training patient, by score; by similarity where
    that is the threshold."""
    trained = copies.trained[copies.patients[copies.synthetic.images]]
    measure = torch.where(trained, copies.synthetic.scores, copies.synthetic.scores - BEHIND)
    if not gate.calibrated:
        measure = torch.tensor(gate.similarities, dtype=torch.float64)
    return measure.argsort(descending=True, stable=True).tolist()


def distance_plots(found: Mapping[str, Distances]) -> list[Plot]:
    """How distances to the nearest training image are distributed, one diagram a space."""
    return [
        _distribution(name, each.synthetic.distances, each.heldout.distances) for name, each in found.items()
    ]


def roc_plot(found: Mapping[str, Distances], sets: Sets) -> Plot:
    """The membership attack's curves."""
    lines = [Line("chance", [0.0, 1.0], [0.0, 1.0])]
    for name, each in found.items():
        members = by_patient(each.members.distances, sets.real.patients)
        false, true = roc(members, by_patient(each.others.distances, sets.heldout.patients))
        places = torch.linspace(0, len(false) - 1, min(len(false), CURVE)).round().long().tolist()
        lines.append(Line(name, [false[place] for place in places], [true[place] for place in places]))
    caption = (
        "The attacker takes a patient for a training patient the nearer the synthetic images nearest to the "
        "patient's images are."
    )
    return Plot(
        "Membership inference",
        "held-out patients taken for training patients",
        "training patients recognised",
        lines,
        caption,
    )


def _distribution(space: str, synthetic: Tensor, heldout: Tensor) -> Plot:
    """Steps: ``y[i]`` from ``x[i]`` on, all of equal width."""
    usual = max(float(heldout.median()), torch.finfo(torch.float64).tiny)
    parts = {"synthetic": synthetic / usual, "held-out real": heldout / usual}
    highest = max(float(part.max()) for part in parts.values()) * (1 + 1e-9)
    edges = torch.linspace(0, max(highest, 1.0), BINS + 1, dtype=torch.float64)
    lines = []
    for name, part in parts.items():
        counts = torch.histogram(part, edges).hist / len(part)
        lines.append(Line(name, edges[:-1].tolist(), counts.tolist()))
    return Plot(
        f"Distance to the nearest training image ({'pixels' if space == PIXELS else space})",
        "distance, as a multiple of the held-out images' median",
        "share of images",
        lines,
        "Copies lie near 0. Synthetic images as new as real ones lie where held-out real images lie.",
        "steps",
    )


def _nearest(training: Tensor, found: Found, order: Tensor) -> Tensor:
    """Nearest training images (N, 1, S, S) of some queries, turned as these lie."""
    pairs = zip(found.indices[order].tolist(), found.ways[order].tolist(), strict=True)
    return torch.cat([turned(training[index : index + 1], WAYS[way]) for index, way in pairs])

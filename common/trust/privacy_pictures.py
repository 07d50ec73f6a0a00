"""Plots and sheets for the question of privacy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.metrics.panel import unit_range
from common.trust.distances import PIXELS, Distances
from common.trust.findings import Line, Picture, Plot
from common.trust.gate import Gate
from common.trust.membership import roc
from common.trust.orientations import WAYS, Found, turned_back
from common.trust.sets import Sets
from common.trust.sheets import sheet_png

SHOWN = 8
BINS = 24
CURVE = 200
"""Points of a curve at most: more cannot be seen."""


def copies_picture(sets: Sets, gate: Gate, found: Mapping[str, Distances]) -> list[Picture]:
    """The synthetic images most similar to a training image, beside the nearest one by each measure.

    The training images are turned as they fit best.
    """
    order = torch.tensor(gate.similarities).argsort(descending=True, stable=True)[:SHOWN]
    columns = [sets.synthetic.images[order]]
    columns += [_nearest(sets.real.images, each.synthetic, order) for each in found.values()]
    names = [
        f"{sets.synthetic.names[place]}: similarity {gate.similarities[place]:.3f} to "
        f"{sets.real.names[gate.nearest[place]]}"
        for place in order.tolist()
    ]
    titles = ("synthetic", *(f"nearest training: {name}" for name in found))
    png = sheet_png([unit_range(column) for column in columns], titles, names)
    flagged = f"{len(gate.flagged)} of {len(sets.synthetic)} images exceed {gate.threshold:.3f}"
    caption = (
        f"The {len(order)} synthetic images most similar to a training image, and the nearest training image "
        f"by each measure, turned as it fits best. {flagged}."
    )
    return [Picture("Synthetic images beside their nearest training images", caption, png)]


def distance_plots(found: Mapping[str, Distances]) -> list[Plot]:
    """How distances to the nearest training image are distributed, one diagram a space."""
    return [
        _distribution(name, each.synthetic.distances, each.heldout.distances) for name, each in found.items()
    ]


def roc_plot(found: Mapping[str, Distances]) -> Plot:
    """The membership attack's curves."""
    lines = [Line("chance", [0.0, 1.0], [0.0, 1.0])]
    for name, each in found.items():
        false, true = roc(each.members.distances, each.others.distances)
        places = torch.linspace(0, len(false) - 1, min(len(false), CURVE)).round().long().tolist()
        lines.append(Line(name, [false[place] for place in places], [true[place] for place in places]))
    caption = (
        "The attacker takes a real image for a training image the nearer its nearest synthetic image is."
    )
    return Plot(
        "Membership inference",
        "held-out images taken for training images",
        "training images recognised",
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
    return torch.cat([turned_back(training[index : index + 1], WAYS[way]) for index, way in pairs])

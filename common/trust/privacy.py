"""Privacy: does the synthetic set reveal whose images the model was trained on?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.features import FeatureExtractor, extract, pattern_vectors
from common.rng import make_rng
from common.trust.gate import Gate, release_gate
from common.trust.image_sets import Sets
from common.trust.membership import (
    CHANCE,
    Distances,
    DomainShift,
    Nearest,
    domain_shift,
    mean_by_patient,
    measure_distances,
    membership_attack,
    oriented_features,
    pixel_distances,
    roc_curve,
)
from common.trust.near_copies import Copies, Evidence, find_copies
from common.trust.registration import ORIENTATION_NAMES, turn
from common.trust.report import AS_REAL, LOWER, Figure, Line, Picture, Plot, Section, sheet_png
from common.visualization import unit_range

PIXELS = "pixels"
NEARLY_ONE = 0.99
"""Similarity of a held-out image to a training image from which on it may be of the same patient."""
REAL_REAL, CHANCE_NAME = "real_real", "chance"
MANY = 1000
"""Patients that either side needs for a true-positive rate at 0.1 % false positives."""
NOTES = {
    "distance": "Median distance to the nearest training image as a multiple of the held-out images'.",
    "copies": "Share of images outstandingly near to a training patient, with that of sets without copies.",
    "auc": "Chance that a training patient is nearer to the synthetic images than a held-out one.",
    "tpr": "Share of training patients recognised where {} % of held-out ones are taken for such.",
}
SHOWN = 8
"""Synthetic images beside their nearest training images in the picture."""
BINS = 24
CURVE = 200
"""Points of a curve at most: more cannot be seen."""
BEHIND = 1e6
"""Subtracted from the score of an image that is nearest to a held-out patient."""
TINY = torch.finfo(torch.float64).tiny
DISTANCE_CAPTION = (
    "Copies lie near 0. Synthetic images as new as real ones lie where held-out real images lie."
)
ROC_CAPTION = (
    "The attacker takes a patient for a training patient if synthetic images are near to the patient's."
)


def privacy(
    sets: Sets,
    extractor: FeatureExtractor,
    seed: int = 0,
    max_similarity: float | None = None,
    resamples: int = 500,
    device: torch.device | str = "cpu",
) -> tuple[Section, Gate]:
    """Measures distances, runs the membership attack and asks the release gate.

    ``sets.real`` must be what the model was trained on, or nothing can be said about copies. Distances in
    pixels and features ignore flips and quarter turns, in pixels also small shifts. The baseline
    ``real_real`` is that of the held-out images.

    Args:
        extractor: on ``device`` already; it sees each real image in eight orientations.
        max_similarity: see `common.trust.gate.release_gate`.
        resamples: of the bootstrap, over patients where several are known.
    Raises:
        UserError: ``max_similarity`` is no correlation.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> from common.trust.image_sets import ImageSet
        >>> images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> parts = images[:3], images[3:6], torch.cat([images[:1].flip(-1), images[6:]])  # one copy
        >>> ids = [[f"{name}{k}" for k in range(3)] for name in ("real", "heldout", "synthetic")]
        >>> sets = Sets(*(ImageSet(part, names, names) for part, names in zip(parts, ids, strict=True)))
        >>> section, gate = privacy(sets, RandomVGG(), resamples=20)
        >>> gate.verdict, gate.flagged[0]  # three held-out patients are too few to decide
        ('undecided', 0)
    """
    count = len(sets.real)
    pool = oriented_features(extractor, torch.cat([sets.real.images, sets.heldout.images]), device)
    oriented = ((index, each[:count], each[count:]) for index, each in enumerate(pool))
    features = extract(extractor, sets.synthetic.images, device=device)
    spaces = {
        PIXELS: pixel_distances(sets),
        extractor.name: measure_distances(features, pool[0][count:], oriented),
    }
    copies = find_copies(sets, extractor, pool, seed, device)
    heldout_similarity = pattern_similarity(sets.heldout.images, spaces[PIXELS].heldout)
    nearest = nearest_training(sets, copies, spaces[PIXELS].synthetic, max_similarity is not None)
    similar = 1 - nearest.distances.square() / 2
    gate = release_gate(copies, similar, nearest.indices.tolist(), max_similarity, seed)
    shift = domain_shift(pool[0][:count], pool[0][count:], (sets.real.patients, sets.heldout.patients), seed)
    figures = [_copied_share(copies, sets.synthetic.volumes, seed, resamples)]
    for name, each in spaces.items():
        figures += _space_figures(name, each, sets, seed, resamples)
    section = Section(
        "privacy",
        "Privacy",
        _describe(gate, figures),
        figures,
        [*distance_plots(spaces), roc_plot(spaces, sets)],
        [copies_picture(sets, gate, copies, nearest, spaces)],
        _warnings(sets, heldout_similarity, shift),
        {
            "gate": _gate_facts(gate, sets, copies),
            "usual_similarity": float(heldout_similarity.median()),
            "copies_looked_for": copies.description,
            "planted_copies_found": dict(copies.noticed()),
            "domain_shift": {"times_usual": shift.ratio, "p_value": shift.p_value},
        },
    )
    return section, gate


def pattern_similarity(images: Tensor, nearest: Nearest) -> Tensor:
    """Correlations (N,) float64 of images (N, 1, S, S) with their nearest image by `pattern_vectors`.

    A constant image resembles nothing: 0.
    """
    constant = pattern_vectors(images).square().sum(1) < 0.5  # else 1
    correlations = 1 - nearest.distances.square() / 2
    return torch.where(constant, torch.zeros_like(correlations), correlations).clamp(-1, 1)


def nearest_training(sets: Sets, copies: Copies, patterns: Nearest, by_similarity: bool) -> Nearest:
    """Finds each synthetic image's nearest training image.

    It is the more similar one of those found by registration and by patterns; or, unless the gate decides
    ``by_similarity`` alone, that which the image is outstandingly near to, in a half or by features.
    """
    evidence, images = copies.synthetic, sets.synthetic.images
    similar = pattern_similarity(images, patterns)
    registered = evidence.training > similar.clamp(min=0)
    similar = torch.where(registered, evidence.training, similar)
    indices = torch.where(registered, evidence.training_images, patterns.indices)
    orientations = torch.where(registered, evidence.training_orientations, patterns.orientations)
    other = copies.hits(evidence)[0] & (evidence.images != indices)
    for row in [] if by_similarity else other.nonzero().flatten().tolist():
        indices[row], orientations[row] = evidence.images[row], evidence.orientations[row]
        training = turn(sets.real.images[indices[row]][None], ORIENTATION_NAMES[orientations[row]])
        pair = pattern_vectors(torch.cat([images[row][None], training])).double()
        similar[row] = float((pair[0] @ pair[1]).abs())
    return Nearest((2 - 2 * similar).clamp(min=0).sqrt(), indices, orientations)


def _describe(gate: Gate, figures: Sequence[Figure]) -> str:
    """States the gate's answer with its reason, then the success of the strongest membership attack."""
    attacks = [figure for figure in figures if figure.name.startswith("membership_auc")]
    strongest = max(attacks, key=lambda each: (each.value.bounded, each.value.low, each.value.mean))
    value = strongest.value
    auc = f"AUC {value.text('.2f')} by {strongest.name.removeprefix('membership_auc_')}"
    if not value.bounded:
        attack = f"There are too few patients to say whether training patients can be recognised ({auc})."
    elif value.low > CHANCE:
        attack = f"Whoever has the synthetic images can tell training patients from others ({auc})."
    else:
        attack = f"The synthetic images do not tell training patients from others ({auc}, 0.50 is chance)."
    return f"The release gate is {gate.verdict}: {gate.reason}. {attack}"


def _warnings(sets: Sets, heldout_similarity: Tensor, shift: DomainShift) -> list[str]:
    """Warns of a domain shift, near duplicates in the real sets, conditions and few patients.

    Args:
        heldout_similarity: of the held-out images to their nearest training image.
    """
    messages = []
    if shift.significant:
        messages.append(
            f"held-out images differ from training images {shift.ratio:.2g} times as much as random "
            f"splits by patient do (p = {shift.p_value:.2g}): are they from another hospital or scanner? "
            "Then they say little about how near images like the training ones may come to them"
        )
    highest, index = float(heldout_similarity.max()), int(heldout_similarity.argmax())
    if highest > NEARLY_ONE:
        messages.append(
            f"{sets.heldout.names[index]} is held out but nearly a training image (similarity "
            f"{highest:.4f}): is it of another patient? Copies cannot be recognised while it is there"
        )
    if sets.synthetic.labels is not None:
        messages.append(
            "images made from training patients' conditions resemble those patients for that reason alone, "
            "and those made from held-out conditions the held-out ones: read the attack's AUC accordingly"
        )
    for name, images in (("training", sets.real), ("held-out", sets.heldout)):
        few = few_patients(len(set(images.patients)))
        if few is not None:
            messages.append(f"{name} images of {few}")
    return messages


def _copied_share(copies: Copies, volumes: Sequence[str] | None, seed: int, resamples: int) -> Figure:
    """Computes the share of flagged images, with that of held-out images and of the sets without copies."""

    def share(evidence: Evidence, key: str, ids: Sequence[str] | None = None) -> Value:
        flagged = copies.hits(evidence)[0].double()
        return Resamples.draw(ids, len(flagged), resamples, make_rng(seed, "copies", key)).share(flagged)

    heldout = ~copies.trained[copies.owners]
    owners = [str(owner) for owner in copies.owners[heldout].tolist()]
    baselines = {REAL_REAL: share(copies.reference.part(heldout), REAL_REAL, owners)}
    baselines |= {name: share(each, name) for name, each in copies.harmless.items()}
    value = share(copies.synthetic, "synthetic", volumes)
    return Figure("copies", value, LOWER, baselines, "", seed, NOTES["copies"])


def _space_figures(space: str, distances: Distances, sets: Sets, seed: int, resamples: int) -> list[Figure]:
    """Computes the ratio of distances and the membership attack in one space."""
    near, far = distances.synthetic.distances, distances.heldout.distances
    first = Resamples.draw(sets.synthetic.volumes, len(near), resamples, make_rng(seed, "privacy", 0))
    second = Resamples.draw(sets.heldout.patients, len(far), resamples, make_rng(seed, "privacy", 1))

    def ratio(weights: Tensor) -> float:
        usual = _weighted_median(far, weights[len(near) :])
        return _weighted_median(near, weights[: len(near)]) / max(usual, TINY)

    value = replace(first.join(second).percentile(ratio), n=len(near))
    baselines = {REAL_REAL: Value(1.0, 1.0, 1.0, len(far))}
    extractor = "" if space == PIXELS else space
    figures = [Figure(f"distance_{space}", value, AS_REAL, baselines, extractor, seed, NOTES["distance"])]
    ids = sets.real.patients, sets.heldout.patients
    rates: dict[str, float | None] = {"auc": None, "tpr_at_1_percent": 0.01}
    if min(len(set(each)) for each in ids) > MANY:
        rates["tpr_at_0.1_percent"] = 0.001
    for name, rate in rates.items():
        members, others = distances.members.distances, distances.others.distances
        value = membership_attack(members, others, ids, seed, resamples, rate)
        chance = CHANCE if rate is None else rate
        note = NOTES["auc"] if rate is None else NOTES["tpr"].format(f"{100 * rate:g}")
        baselines = {CHANCE_NAME: Value(chance, chance, chance, value.n)}
        figures.append(Figure(f"membership_{name}_{space}", value, LOWER, baselines, extractor, seed, note))
    return figures


def _weighted_median(values: Tensor, weights: Tensor) -> float:
    """Finds the smallest of the values (N,) that half of the weight does not exceed."""
    ordered, order = values.sort()
    shares = weights[order].cumsum(0) / weights.sum()
    return float(ordered[int((shares < 0.5).sum())])


def _gate_facts(gate: Gate, sets: Sets, copies: Copies) -> dict[str, object]:
    flagged = [
        {
            "image": sets.synthetic.names[index],
            "nearest": sets.real.names[gate.nearest[index]],
            "similarity": round(gate.similarities[index], 4),
            "score": round(gate.scores[index], 2),
            "view": copies.synthetic.view(index),
        }
        for index in gate.flagged
    ]
    return {
        "verdict": gate.verdict,
        "open": gate.open,
        "threshold": gate.threshold,
        "calibrated": gate.calibrated,
        "p_value": gate.p_value if gate.calibrated else None,
        "smallest_share_noticed": gate.noticed if math.isfinite(gate.noticed) else None,
        "reason": gate.reason,
        "flagged": flagged,
    }


def copies_picture(
    sets: Sets, gate: Gate, copies: Copies, nearest: Nearest, spaces: Mapping[str, Distances]
) -> Picture:
    """Shows the synthetic images most outstandingly near to a training patient beside the training images.

    The training images are turned as they fit best, but not zoomed, shifted or rotated further.

    Args:
        nearest: the nearest training image of each synthetic image by the gate's search.
        spaces: distances by space.
    """
    trained = copies.trained[copies.patients[copies.synthetic.images]]
    measure = torch.where(trained, copies.synthetic.scores, copies.synthetic.scores - BEHIND)
    if not gate.calibrated:
        measure = torch.tensor(gate.similarities, dtype=torch.float64)
    order = measure.argsort(descending=True, stable=True)[:SHOWN]

    def turned(each: Nearest) -> Tensor:
        pairs = zip(each.indices[order].tolist(), each.orientations[order].tolist(), strict=True)
        images = sets.real.images
        return torch.cat([turn(images[row : row + 1], ORIENTATION_NAMES[way]) for row, way in pairs])

    columns = [sets.synthetic.images[order], turned(nearest)]
    columns += [turned(each.synthetic) for each in spaces.values()]
    names = [
        f"{sets.synthetic.names[index]}: {gate.scores[index]:.1f} ({copies.synthetic.view(index)}), "
        f"similarity {gate.similarities[index]:.3f} to {sets.real.names[gate.nearest[index]]}"
        for index in order.tolist()
    ]
    titles = ("synthetic", "nearest training: gate", *(f"nearest training: {name}" for name in spaces))
    png = sheet_png([unit_range(column) for column in columns], titles, names)
    caption = (
        f"The {len(order)} synthetic images most outstandingly near to a training image, and the nearest "
        "training image by the gate's search and in each space, turned as it fits best. Below each row: how "
        "much nearer than usual the image is (0 is usual, 95 % of real images are below 1), in which view. "
        f"{len(gate.flagged)} of {len(sets.synthetic)} images exceed {gate.threshold:.3g}."
    )
    return Picture("Synthetic images beside their nearest training images", caption, png)


def distance_plots(spaces: Mapping[str, Distances]) -> list[Plot]:
    """Plots the distributions of the distances to the nearest training image, one plot per space."""
    plots = []
    for space, distances in spaces.items():
        usual = max(float(distances.heldout.distances.median()), TINY)
        pairs = (("synthetic", distances.synthetic), ("held-out real", distances.heldout))
        parts = {name: nearest.distances / usual for name, nearest in pairs}
        highest = max(float(part.max()) for part in parts.values()) * (1 + 1e-9)
        edges = torch.linspace(0, max(highest, 1.0), BINS + 1, dtype=torch.float64)
        shares = {name: torch.histogram(part, edges).hist / len(part) for name, part in parts.items()}
        lines = [Line(name, edges[:-1].tolist(), share.tolist()) for name, share in shares.items()]
        title = f"Distance to the nearest training image ({space})"
        x_label = "distance, as a multiple of the held-out images' median"
        plots.append(Plot(title, x_label, "share of images", lines, DISTANCE_CAPTION, "steps"))
    return plots


def roc_plot(spaces: Mapping[str, Distances], sets: Sets) -> Plot:
    """Plots the membership attack's ROC curves."""
    lines = [Line("chance", [0.0, 1.0], [0.0, 1.0])]
    for name, each in spaces.items():
        members = mean_by_patient(each.members.distances, sets.real.patients)
        false, true = roc_curve(members, mean_by_patient(each.others.distances, sets.heldout.patients))
        points = torch.linspace(0, len(false) - 1, min(len(false), CURVE)).round().long().tolist()
        lines.append(Line(name, [false[point] for point in points], [true[point] for point in points]))
    axes = "held-out patients taken for training patients", "training patients recognised"
    return Plot("Membership inference", *axes, lines, ROC_CAPTION)

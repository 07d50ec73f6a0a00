"""Privacy: does the synthetic set give away whose images the model was trained on?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.features import FeatureExtractor, extract, pattern_vectors, small_images
from common.rng import make_rng
from common.trust.figures import sheet_png
from common.trust.gate import Gate, release_gate, similarities
from common.trust.image_sets import Sets
from common.trust.near_copies import Copies, find_copies
from common.trust.registration import STAY, WAYS, Found, NearestOfAll, all_moved, shifts_up_to, turned
from common.trust.results import AS_REAL, LOWER, Figure, Line, Picture, Plot, Section
from common.visualization import unit_range

PIXELS = "pixels"
REACH = 2
"""Shifts of so many of 32 pixels are looked for: of 6 % of the side."""
MOST_PAIRS = 10_000_000
"""With more pairs of images shifts are not looked for: 25 times the work."""


@dataclass(frozen=True)
class Distances:
    """In one space; flips and quarter turns do not count, in pixels small shifts neither.

    Attributes:
        synthetic: each synthetic image's nearest training image.
        heldout: each held-out image's nearest training image.
        members: each training image's nearest synthetic image.
        others: each held-out image's nearest synthetic image.
    """

    synthetic: Found
    heldout: Found
    members: Found
    others: Found


def looks_for_shifts(sets: Sets) -> bool:
    """Whether the sets are small enough to look for shifts too."""
    return len(sets.real) * max(len(sets.synthetic), len(sets.heldout)) <= MOST_PAIRS


def turned_features(
    extractor: FeatureExtractor, images: Tensor, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Features (N, D) of images (N, 1, S, S), once for each of the `WAYS` that they are turned.

    Args:
        extractor: on ``device`` already.
    """
    return [extract(extractor, turned(images, way), device=device) for way in WAYS]


def pixel_distances(sets: Sets) -> Distances:
    """Between patterns of 32 x 32 pixels, see `pattern_vectors`."""
    shifts = shifts_up_to(REACH) if looks_for_shifts(sets) else STAY
    real, heldout = (small_images(each.images) for each in (sets.real, sets.heldout))
    moved = (all_moved(each, pattern_vectors, shifts) for each in (real, heldout))
    synthetic = pattern_vectors(sets.synthetic.images)
    return distances(
        synthetic,
        pattern_vectors(heldout),
        ((way, here, there) for (way, here), (_, there) in zip(*moved, strict=True)),
    )


def distances(synthetic: Tensor, heldout: Tensor, moved: Iterable[tuple[int, Tensor, Tensor]]) -> Distances:
    """All four.

    Args:
        synthetic, heldout: vectors (N, D) and (K, D).
        moved: vectors of the training images (M, D) and of the held-out ones (K, D), moved in all ways, with
            each way's place in `WAYS`.
    """
    to_training, usual, members, others = (NearestOfAll() for _ in range(4))
    for way, training, apart in moved:
        to_training.add(synthetic, training, way)
        usual.add(heldout, training, way)
        members.add(training, synthetic, way)
        others.add(apart, synthetic, way)
    return Distances(to_training.found, usual.found, members.found, others.found)


CHANCE = 0.5


def by_patient(values: Tensor, patients: Sequence[str]) -> Tensor:
    """The mean (P, ...) float64 of each patient's values (N, ...); patients in order of appearance."""
    names = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    owners = torch.tensor([names[patient] for patient in patients])
    sums = torch.zeros(len(names), *values.shape[1:], dtype=torch.float64)
    counts = owners.bincount().view(-1, *[1] * (values.ndim - 1))
    return sums.index_add(0, owners, values.double()) / counts


def membership_auc(members: Tensor, others: Tensor, weights: Tensor | None = None) -> float:
    """The chance that a member is nearer to the synthetic images than another; equals count half.

    Args:
        members, others: distances (N,) and (M,) to the nearest synthetic image.
        weights: (N + M,) how often each counts, members first (bootstrap); once each by default.
    Returns:
        0 to 1; NaN where no member or no other counts.
    """
    here, there = _counted(members, others, weights)
    farther = there.sum() - there.cumsum(0)  # others that are farther than each level
    return float((here * (farther + there / 2)).sum() / (here.sum() * there.sum()))


def recognised(members: Tensor, others: Tensor, rate: float, weights: Tensor | None = None) -> float:
    """The share of members recognised where at most a share ``rate`` of others is taken for members (TPR at a
    given FPR).

    Args:
        members, others, weights: as `membership_auc`.
        rate: with fewer than 1 / ``rate`` others, none of them is.
    Returns:
        0 to 1; NaN where no member or no other counts.
    """
    here, there = _counted(members, others, weights)
    allowed = there.cumsum(0) <= rate * there.sum()
    return float((here * allowed).sum() / here.sum()) if there.any() else float("nan")


def membership(
    members: Tensor,
    others: Tensor,
    patients: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
    resamples: int = 500,
    rate: float | None = None,
) -> Value:
    """`membership_auc` of patients with its interval, or `recognised` at a ``rate``.

    Args:
        members, others: distances (N,) and (M,) of images.
        patients: of the members and of the others, one id an image.
    """

    def statistic(near: Tensor, far: Tensor, weights: Tensor | None = None) -> float:
        if rate is None:
            return membership_auc(near, far, weights)
        return recognised(near, far, rate, weights)

    near, far = by_patient(members, patients[0]), by_patient(others, patients[1])
    drawn = [
        Resamples.draw(
            [f"{side} {k}" for k in range(len(part))],
            len(part),
            resamples,
            make_rng(seed, "membership", side),
        )
        for side, part in enumerate((near, far))
    ]
    both = drawn[0].join(drawn[1])
    if rate is not None:  # it has jumps
        return both.percentile(lambda weights: statistic(near, far, weights))
    return both.distance(lambda weights: statistic(near, far, weights)).within(0, 1)


def roc(members: Tensor, others: Tensor) -> tuple[list[float], list[float]]:
    """The attack's curve: shares of others (M,) and of members (N,) that each threshold takes for members."""
    levels = torch.cat([members, others]).unique()
    shares = [
        torch.searchsorted(part.sort().values, levels, right=True).double() / len(part)
        for part in (others, members)
    ]
    false, true = ([0.0, *share.tolist()] for share in shares)
    return false, true


def _counted(members: Tensor, others: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """How many members and others there are at each distance, the smallest first."""
    levels, places = torch.cat([members, others]).unique(return_inverse=True)
    counts = torch.ones(len(places), dtype=torch.float64) if weights is None else weights.double()
    split = len(members)
    here, there = (
        torch.zeros(len(levels), dtype=torch.float64).index_add(0, places[part], counts[part])
        for part in (slice(0, split), slice(split, None))
    )
    return here, there


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
    columns = [sets.synthetic.images[order], _nearest_images(sets.real.images, nearest, order)]
    columns += [_nearest_images(sets.real.images, each.synthetic, order) for each in found.values()]
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


def _nearest_images(training: Tensor, found: Found, order: Tensor) -> Tensor:
    """Nearest training images (N, 1, S, S) of some queries, turned as these lie."""
    pairs = zip(found.indices[order].tolist(), found.ways[order].tolist(), strict=True)
    return torch.cat([turned(training[index : index + 1], WAYS[way]) for index, way in pairs])


SPLITS = 499
"""Splits of the patients at random; 499 and the true one make the p-value a multiple of 1/500."""
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Shift:
    """How far apart the two sets' mean patients are.

    Attributes:
        ratio: the squared distance as a multiple of the usual one, of parts of the same size that are split
            at random by patient.
        p_value: of the test.
    """

    ratio: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether it is more than chance."""
        return self.p_value < SIGNIFICANT


def domain_shift(
    training: Tensor, heldout: Tensor, patients: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> Shift:
    """A permutation test over patients: the squared distance of the sets' means, against random splits.

    Args:
        training, heldout: features (N, D) and (M, D).
        patients: of both, one id an image; each patient counts once.
    """
    means = torch.cat([by_patient(training, patients[0]), by_patient(heldout, patients[1])])
    means = (means - means.mean(0)) / means.std(0).clamp(min=1e-6)  # (P, D)
    trained = len(set(patients[0]))
    numbers = make_rng(seed, "shift")
    sides = torch.zeros(1 + SPLITS, len(means), dtype=torch.float64)
    sides[0, :trained] = 1
    for row in sides[1:]:
        row[torch.from_numpy(numbers.permutation(len(means))[:trained])] = 1
    weights = sides / trained - (1 - sides) / (len(means) - trained)  # (1 + SPLITS, P)
    apart = (weights @ means).square().sum(1)
    usual = apart[1:].median().clamp(min=torch.finfo(torch.float64).tiny)
    return Shift(float(apart[0] / usual), float((apart >= apart[0]).double().mean()))


NEARLY_ONE = 0.99


def statement(gate: Gate, figures: Sequence[Figure]) -> str:
    """The gate's answer with its reason, then the attack's success."""
    attacks = [figure for figure in figures if figure.name.startswith("membership_auc")]
    strongest = max(attacks, key=lambda each: (each.value.bounded, each.value.low, each.value.mean))
    space = strongest.name.removeprefix("membership_auc_")
    value = strongest.value
    figure = f"AUC {value.text('.2f')} by {space}"
    if not value.bounded:
        told = f"With so few patients it cannot be said whether training patients can be told ({figure})."
    elif value.low > CHANCE:
        told = f"One who has the synthetic images can tell training patients from others ({figure})."
    else:
        told = f"The synthetic images do not tell training patients from others ({figure}, 0.50 is chance)."
    return f"The release gate is {gate.verdict}: {gate.reason}. {told}"


def warnings(sets: Sets, usual: Tensor, gate: Gate, shift: Shift) -> list[str]:
    """What a reader must know before trusting the figures.

    Args:
        usual: similarities of the held-out images to their nearest training image.
        shift: between training and held-out images.
    """
    said = []
    if shift.found:
        said.append(
            f"held-out images differ from training images {shift.ratio:.2g} times as much as parts "
            f"split at random by patient do (p = {shift.p_value:.2g}): are they from another hospital or "
            "scanner? Then they say little of how near images like the training ones may come to them"
        )
    if float(usual.max()) > NEARLY_ONE:
        place = int(usual.argmax())
        said.append(
            f"{sets.heldout.names[place]} is held out but nearly a training image (similarity "
            f"{float(usual.max()):.4f}): is it of another patient? Copies cannot be told while it is there"
        )
    if sets.synthetic.labels is not None:
        said.append(
            "images made from training patients' conditions resemble those patients for that alone, and "
            "those made from held-out conditions the held-out ones: read the attack's AUC with that in mind"
        )
    for name, images in (("training", sets.real), ("held-out", sets.heldout)):
        few = few_patients(len(set(images.patients)))
        if few is not None:
            said.append(f"{name} images of {few}")
    return said


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
        drawn = Resamples.draw(patients, len(flagged), resamples, make_rng(seed, "copies", key))
        return drawn.share(flagged.double())

    held = ~copies.trained[copies.owners]
    owners = [str(owner) for owner in copies.owners[held].tolist()]
    beside = {REAL_REAL: share(copies.hits(copies.reference)[0][held], owners, REAL_REAL)}
    beside |= {name: share(copies.hits(each)[0], None, name) for name, each in copies.harmless.items()}
    value = share(copies.hits(copies.synthetic)[0], volumes, "synthetic")
    return Figure("copies", value, LOWER, beside, "", seed, NOTES["copies"])


def _figures(space: str, found: Distances, sets: Sets, seed: int, resamples: int) -> list[Figure]:
    drawn = [
        Resamples.draw(ids, length, resamples, make_rng(seed, "privacy", side))
        for side, (ids, length) in enumerate(
            ((sets.synthetic.volumes, len(sets.synthetic)), (sets.heldout.patients, len(sets.heldout)))
        )
    ]
    synthetic, heldout = found.synthetic.distances, found.heldout.distances
    ratio, one = _ratio(synthetic, heldout, drawn[0].join(drawn[1])), Value(1.0, 1.0, 1.0, len(heldout))
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

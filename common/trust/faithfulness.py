"""Do synthetic images show what their conditions ask for? A segmenter that learned from real images looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from common.metrics.bootstrap import Resamples, Value
from common.random import generator
from common.training.in_memory import Budget
from common.trust.components import Parts, smallest_part
from common.trust.findings import HIGHER, LOWER, Figure, Line, Plot, Section
from common.trust.seen import Seen, can_judge, condition_index, seen, shuffled
from common.trust.segmenting import NAME, mean_dice, segmented, structure_names, train_segmenter
from common.trust.sets import ImageSet, Sets
from common.trust.sheets import mistakes_picture

HELD_OUT, SHUFFLED = "heldout_real", "shuffled_conditions"
EXTRACTOR = f"{NAME}, trained on the real images"
FOLLOWS, IGNORES = 0.8, 0.2
TITLE = "Faithfulness: do the images show what their conditions ask for?"


def faithfulness(
    sets: Sets,
    seed: int = 0,
    budget: Budget | None = None,
    resamples: int = 1000,
    shown: int = 6,
    device: torch.device | str = "cpu",
) -> Section | None:
    """Re-segments the synthetic images and compares with their conditions.

    Beside each value stand two: the same segmenter on held-out real images (what good is on this set), and
    the synthetic images against other images' conditions (what an image is worth that ignores its own).

    Args:
        budget: of the segmenter's training.
        shown: images that lost or invented structures, in the picture.
    Returns:
        None where the synthetic images have no conditions, or the real ones no labels.
    Raises:
        UserError: the structures of the sets differ.
    """
    real, heldout, synthetic = sets.real, sets.heldout, sets.synthetic
    if real.labels is None or heldout.labels is None or synthetic.labels is None:
        return None
    structures, budget = structure_names(real, heldout, synthetic), budget or Budget()
    network = train_segmenter(real.images, real.labels, len(structures), budget, seed, device)
    found = segmented(network, synthetic.images, device)
    in_heldout = segmented(network, heldout.images, device)

    drawn = _resamples(synthetic.volumes or synthetic.patients, resamples, seed, "synthetic")
    beside = _resamples(heldout.patients, resamples, seed, "heldout")
    own = seen(found, synthetic.labels, len(structures), drawn)
    good = seen(in_heldout, heldout.labels, len(structures), beside)
    bad = shuffled(found, synthetic.labels, len(structures), drawn, seed)
    index = condition_index(own, good, bad)
    facts = _facts(own.parts, synthetic.names, structures, budget, found.shape[-1], len(real))
    return Section(
        name="faithfulness",
        title=TITLE,
        statement=statement(index, own, good, bad),
        figures=_figures(index, {"": own, HELD_OUT: good, SHUFFLED: bad}, structures, seed),
        plots=[_plot(own, good, bad)],
        pictures=mistakes_picture(synthetic, found, own.parts, structures, shown),
        warnings=_warnings(good, bad, known_conditions(synthetic, real), len(synthetic)),
        facts=facts,
    )


def statement(index: Value, own: Seen, good: Seen, bad: Seen) -> str:
    """What the figures say, whichever way they point."""
    numbers = (
        f"Dice {_shown(own.dice())} in the synthetic images, {_shown(good.dice())} in held-out real ones, "
        f"{bad.dice().mean:.2f} against other images' conditions"
    )
    lost, invented = (int((parts.sum(1) > 0).sum()) for parts in (own.parts.lost, own.parts.invented))
    faults = f"Of {len(own.counts)} images {lost} lose a structure of their condition, {invented} have more"
    return f"{_verdict(index, good, bad)}: {numbers}. {faults}."


def _verdict(index: Value, good: Seen, bad: Seen) -> str:
    if not can_judge(good, bad) or not math.isfinite(index.mean):
        return "Cannot be judged: the segmenter is too weak on real images"
    if not index.bounded:
        return f"Cannot be judged with so few patients (they reach {index.mean:.2f} of what real images do)"
    if index.low >= FOLLOWS:
        return "The images follow their conditions about as well as real images do"
    if index.high <= IGNORES:
        return "The images hardly depend on their conditions"
    if index.low > 0:
        return f"The images follow their conditions in part ({_shown(index)} of what real images reach)"
    return (
        f"It is not clear that the images follow their conditions ({_shown(index)} of what real ones reach)"
    )


def _figures(index: Value, views: Mapping[str, Seen], structures: Sequence[str], seed: int) -> list[Figure]:
    one = Value(1.0, 1.0, 1.0, views[HELD_OUT].dice().n)
    figures = [
        Figure(
            "condition_faithfulness",
            index,
            HIGHER,
            {HELD_OUT: one, SHUFFLED: Value(0.0, 0.0, 0.0, index.n)},
            EXTRACTOR,
            seed,
            "where the Dice lies between that of others' conditions (0) and that of held-out real images (1)",
        )
    ]
    places: dict[str, int | None] = {"": None}
    if len(structures) > 1:
        wanted = torch.cat([view.counts[:, :, 2] for view in views.values()]).sum(0)  # (K,) pixels
        places |= {f"_{name}": place for place, name in enumerate(structures) if wanted[place]}
    for suffix, place in places.items():
        figures += _measures(views, suffix, place, seed)
    return figures


def _measures(views: Mapping[str, Seen], suffix: str, place: int | None, seed: int) -> list[Figure]:
    measures = {
        "dice": (Seen.dice, HIGHER, ""),
        "sensitivity": (Seen.sensitivity, HIGHER, "share of the condition's pixels that was found"),
        "false_structures": (Seen.invented, LOWER, "an image; found where the condition has nothing of it"),
        "lost_structures": (Seen.lost, LOWER, "an image; nothing found where the condition has one"),
    }
    figures = []
    for name, (measure, better, note) in measures.items():
        values = {baseline: measure(view, place) for baseline, view in views.items()}
        own = values.pop("")
        said = "" if suffix else note  # once is enough
        figures.append(Figure(f"{name}{suffix}", own, better, values, EXTRACTOR, seed, said))
    return figures


def _plot(own: Seen, good: Seen, bad: Seen) -> Plot:
    """How the images' own Dice are distributed."""
    edges = np.linspace(0, 1, 11)
    lines = []
    for name, view in (("synthetic", own), ("held-out real", good), ("others' conditions", bad)):
        values = np.array([mean_dice(counts) for counts in view.counts])
        values = values[np.isfinite(values)]
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        lines.append(Line(name, edges.tolist(), share.tolist()))
    caption = "Mean over the structures that the condition or the segmenter has, image by image."
    return Plot("Dice of the single images", "Dice", "share of the images", lines, caption, "steps")


def _facts(
    parts: Parts, names: Sequence[str], structures: Sequence[str], budget: Budget, side: int, trained: int
) -> dict[str, Any]:
    def listed(counts: np.ndarray) -> dict[str, dict[str, int]]:
        return {names[place]: found for place, found in parts.listed(counts, structures)}

    lost, invented = listed(parts.lost), listed(parts.invented)
    return {
        "structures": list(structures),
        "smallest_structure_pixels": smallest_part(side),
        "segmenter": {"network": NAME, "trained_on": trained, "budget": asdict(budget)},
        "images_that_lose_structures": lost,
        "images_that_invent_structures": invented,
    }


def known_conditions(synthetic: ImageSet, real: ImageSet) -> int:
    """How many synthetic images have the very label of an image that the segmenter learns from."""
    if synthetic.labels is None or real.labels is None:
        return 0
    learned = {label.numpy().tobytes() for label in real.labels}
    return sum(label.numpy().tobytes() in learned for label in synthetic.labels)


def _warnings(good: Seen, bad: Seen, known: int, count: int) -> list[str]:
    warnings = []
    if known:
        warnings.append(
            f"{known} of {count} conditions are the very label of an image that the segmenter learned from: "
            "it may find more in the synthetic images for that."
        )
    if not can_judge(good, bad):
        warnings.append(
            f"The segmenter reaches Dice {good.dice().mean:.2f} on held-out real images, hardly more than "
            f"{bad.dice().mean:.2f} for conditions of others: give it more real images or more iterations."
        )
    if count < 2:
        warnings.append("One synthetic image has no other condition to be compared with.")
    return warnings


def _resamples(patients: Sequence[str], count: int, seed: int, name: str) -> Resamples:
    random = generator(seed, "faithfulness", name)
    single = len(set(patients)) == len(patients)  # each image its own: no patients to count
    return Resamples.over(None if single else patients, len(patients), count, random)


def _shown(value: Value) -> str:
    return value.said(".2f")

"""Faithfulness: do synthetic images show their conditions? A segmenter trained on real images judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.segmentation import ComponentCounts, compare_components, smallest_component
from common.rng import make_rng
from common.training.fit_supervised import Budget, fit, predictions, seeded
from common.trust.figures import mistakes_picture
from common.trust.image_sets import ImageSet, Sets, TrainingSlices
from common.trust.results import HIGHER, LOWER, Figure, Line, Plot, Section

NAME = "unet"
LEVELS = 3  # halvings


def structure_names(*sets: ImageSet) -> list[str]:
    """The names of the label values from 1 on, from the sets, else by number.

    Names beyond the highest value are left out: a model may know more structures than these sets show.

    Raises:
        UserError: the sets' names differ, or a label has a value beyond them.
    """
    given = [list(each.structures) for each in sets if each.structures]
    if any(names != given[0] for names in given):
        raise UserError(f"labels of {', '.join(map(str, given))}: the sets' structures differ")
    highest = max(int(each.labels.max()) for each in sets if each.labels is not None)
    names = given[0] if given else ["structure"] if highest <= 1 else [str(k + 1) for k in range(highest)]
    if highest > len(names):
        raise UserError(f"a label has the value {highest}, but the structures are {', '.join(names)}")
    return names[: max(highest, 1)]


def make_segmenter(classes: int, width: int = 16) -> nn.Module:
    """A U-Net for images (B, 1, S, S) in [-1, 1], S a multiple of 8.

    It returns logits (B, classes + 1, S, S), background first.
    """
    channels = (width, 2 * width, 4 * width, 4 * width)
    return UNet(2, 1, classes + 1, channels, (2,) * LEVELS, num_res_units=1, norm="batch")


def train_segmenter(
    images: Tensor,
    labels: Tensor,
    classes: int,
    budget: Budget,
    seed: int,
    device: torch.device | str = "cpu",
    parts: Sequence[int] = (),
) -> nn.Module:
    """Trains a segmenter on slices (N, 1, S, S) with class indices 0..classes (N, 1, S, S).

    The loss is Dice and cross-entropy in equal parts. First weights and order follow from the seed. Each
    batch holds equal shares of the ``parts`` (given by their sizes, in the images' order).

    Raises:
        UserError: the size does not fit the network.
    """
    side = images.shape[-1]
    if side % 2**LEVELS:
        raise UserError(f"images of {side} pixels: the segmenter takes multiples of {2**LEVELS}")
    network = seeded(lambda: make_segmenter(classes), seed, "segmenter")
    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)
    items = TrainingSlices(images, {"label": labels}, seed)
    return fit(network, items, {"dice_ce": loss}, "label", budget, seed, device, parts)


def segmented(network: nn.Module, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Segments images (N, 1, S, S) into class indices (N, 1, S, S) uint8."""
    batches = [predictions(network, batch, device).argmax(1, keepdim=True) for batch in images.split(64)]
    return torch.cat(batches).to(torch.uint8)


def overlaps(found: Tensor, true: Tensor, classes: int) -> Tensor:
    """Counts for each image and class the pixels that are found and true, found, and true.

    Args:
        found, true: class indices (N, 1, S, S).
    Returns:
        (N, K, 3) float64.
    """
    parts = []
    for index in range(1, classes + 1):
        a, b = (labels.flatten(1).round() == index for labels in (found, true))  # (N, S * S)
        parts.append(torch.stack([(a & b).sum(1), a.sum(1), b.sum(1)], dim=1))
    return torch.stack(parts, dim=1).double()


def mean_dice(sums: Tensor) -> float:
    """The mean Dice over the classes that either side has, from sums (K, 3) of `overlaps`.

    Example:
        >>> mean_dice(torch.tensor([[10.0, 20.0, 20.0], [0.0, 5.0, 0.0]]))
        0.25
    """
    both, found, true = sums.T
    return float((2 * both / (found + true)).nanmean())


SHIFTS = 5
"""Other images whose conditions each image is compared with."""
PART_NAMES = ("wanted", "lost", "invented")

LEAST_MARGIN = 0.1
"""Dice by which real images' own conditions must exceed others', or the segmenter cannot judge."""


@dataclass(frozen=True)
class Seen:
    """What the segmenter found in N images, compared with one set of conditions.

    Attributes:
        counts: (N, K, 3) of `overlaps`, float64.
        parts: of `compare_components`.
        resamples: of the N images.
    """

    counts: Tensor
    parts: ComponentCounts
    resamples: Resamples

    def dice(self, index: int | None = None) -> Value:
        """Dice of one structure, or the mean over all; images are pooled."""
        return self.resamples.ratio(self._of(index), mean_dice).within(0, 1)

    def sensitivity(self, index: int | None = None) -> Value:
        """The share of the condition's pixels that was found."""
        return self.resamples.ratio(self._of(index), mean_sensitivity).within(0, 1)

    def invented(self, index: int | None = None) -> Value:
        """Structures per image that the condition does not have."""
        return self.resamples.mean(_summed(self.parts.invented, index))

    def lost(self, index: int | None = None) -> Value:
        """Structures of the condition per image in which nothing was found."""
        return self.resamples.mean(_summed(self.parts.lost, index))

    def _of(self, index: int | None) -> Tensor:
        return self.counts if index is None else self.counts[:, index : index + 1]


def seen(found: Tensor, conditions: Tensor, classes: int, resamples: Resamples) -> Seen:
    """Compares class indices found and wanted, (N, 1, S, S) each."""
    return Seen(
        overlaps(found, conditions, classes), compare_components(found, conditions, classes), resamples
    )


def shuffled(found: Tensor, conditions: Tensor, classes: int, resamples: Resamples, seed: int) -> Seen:
    """Compares each image with the conditions of `SHIFTS` other images; a single image with none."""
    order = make_rng(seed, "faithfulness", "shuffled").permutation(len(found))
    shifts = range(1, min(SHIFTS, len(found) - 1) + 1)
    others = [seen(found, conditions[_moved(order, shift)], classes, resamples) for shift in shifts]
    if not others:
        return seen(found, torch.zeros_like(conditions), classes, resamples)
    parts = [np.mean([getattr(each.parts, name) for each in others], axis=0) for name in PART_NAMES]
    return Seen(torch.stack([each.counts for each in others]).sum(0), ComponentCounts(*parts), resamples)


def condition_index(own: Seen, good: Seen, bad: Seen) -> Value:
    """The Dice rescaled to 0 for others' conditions and 1 for held-out real images.

    NaN where the segmenter cannot judge: it finds held-out structures hardly better than others' conditions.
    """
    if not can_judge(good, bad):
        return Value(math.nan, math.nan, math.nan, len(own.counts))
    first, second = len(own.counts), len(good.counts)
    parts = torch.zeros(first + second, 3, *own.counts.shape[1:], dtype=torch.float64)  # (N + M, 3, K, 3)
    parts[:first, 0], parts[:first, 1], parts[first:, 2] = own.counts, bad.counts, good.counts
    value = own.resamples.join(good.resamples).ratio(parts, _index)
    return replace(value, n=first)


def can_judge(good: Seen, bad: Seen) -> bool:
    """Whether the segmenter finds held-out images' own conditions clearly better than others'."""
    return good.dice().mean - bad.dice().mean >= LEAST_MARGIN


def mean_sensitivity(sums: Tensor) -> float:
    """The mean over structures of the share that was found, from sums (K, 3) of `overlaps`."""
    both, _, wanted = sums.T
    return float((both / wanted).nanmean())


def _index(sums: Tensor) -> float:
    own, bad, good = (mean_dice(part) for part in sums)
    return (own - bad) / (good - bad) if good > bad else math.nan


def _summed(counts: np.ndarray, index: int | None) -> Tensor:
    chosen = counts.sum(1) if index is None else counts[:, index]
    return torch.from_numpy(np.asarray(chosen, np.float64))


def _moved(order: np.ndarray, shift: int) -> np.ndarray:
    """The index of another image for each image, ``shift`` further in a random order."""
    others = np.empty_like(order)
    others[order] = np.roll(order, -shift)
    return others


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
    """Segments the synthetic images and compares the result with their conditions.

    Two baselines: the same segmenter on held-out real images (a good value on this set), and the synthetic
    images against other images' conditions (the value of images that ignore their condition).

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
    """The figures in words."""
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
            "the Dice rescaled: 0 for others' conditions, 1 for held-out real images",
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
        "false_structures": (Seen.invented, LOWER, "per image; found where the condition does not have them"),
        "lost_structures": (Seen.lost, LOWER, "per image; nothing found where the condition has one"),
    }
    figures = []
    for name, (measure, better, note) in measures.items():
        values = {baseline: measure(view, place) for baseline, view in views.items()}
        own = values.pop("")
        said = "" if suffix else note  # once is enough
        figures.append(Figure(f"{name}{suffix}", own, better, values, EXTRACTOR, seed, said))
    return figures


def _plot(own: Seen, good: Seen, bad: Seen) -> Plot:
    """The distribution of the single images' Dice."""
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
    parts: ComponentCounts,
    names: Sequence[str],
    structures: Sequence[str],
    budget: Budget,
    side: int,
    trained: int,
) -> dict[str, Any]:
    def listed(counts: np.ndarray) -> dict[str, dict[str, int]]:
        return {names[place]: found for place, found in parts.listed(counts, structures)}

    lost, invented = listed(parts.lost), listed(parts.invented)
    return {
        "structures": list(structures),
        "smallest_structure_pixels": smallest_component(side),
        "segmenter": {"network": NAME, "trained_on": trained, "budget": asdict(budget)},
        "images_that_lose_structures": lost,
        "images_that_invent_structures": invented,
    }


def known_conditions(synthetic: ImageSet, real: ImageSet) -> int:
    """The number of synthetic images whose condition is a label that the segmenter learned from."""
    if synthetic.labels is None or real.labels is None:
        return 0
    learned = {label.numpy().tobytes() for label in real.labels}
    return sum(label.numpy().tobytes() in learned for label in synthetic.labels)


def _warnings(good: Seen, bad: Seen, known: int, count: int) -> list[str]:
    warnings = []
    if known:
        warnings.append(
            f"{known} of {count} conditions are labels that the segmenter learned from: it may find more "
            "in the synthetic images for that reason."
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
    random = make_rng(seed, "faithfulness", name)
    single = len(set(patients)) == len(patients)  # each image its own: no patients to count
    return Resamples.draw(None if single else patients, len(patients), count, random)


def _shown(value: Value) -> str:
    return value.text(".2f")

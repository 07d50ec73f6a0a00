"""Faithfulness: do synthetic images show their conditions? A segmenter trained on real images measures it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import RandAffined, RandFlipd
from torch import Tensor, nn

from common.data.replay import ReplayDataset
from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.segmentation import (
    ComponentCounts,
    compare_components,
    mean_dice,
    overlap_counts,
    smallest_component,
)
from common.rng import make_rng
from common.training.fit_supervised import Budget, fit, predictions, seeded
from common.trust.image_sets import ImageSet, Sets
from common.trust.report import HIGHER, LOWER, Figure, Line, Picture, Plot, Section, sheet_png
from common.visualization import class_picture, unit_range

NAME = "unet"
LEVELS = 3  # halvings
SHIFTS = 5
"""Other images whose conditions each image is compared with."""
LEAST_MARGIN = 0.1
"""Dice by which real images' own conditions must exceed others', or the segmenter cannot judge."""
FOLLOWS, IGNORES = 0.8, 0.2
HELD_OUT, SHUFFLED = "heldout_real", "shuffled_conditions"
EXTRACTOR = f"{NAME}, trained on the real images"
TITLE = "Faithfulness: do the images show what their conditions ask for?"


def structure_names(*sets: ImageSet) -> list[str]:
    """Returns the names of the label values from 1 to the highest; numbers if the sets have no names.

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


class TrainingSlices(ReplayDataset):
    """Slices (1, S, S) in [-1, 1] with their targets; augmented for a `SampleIndex`, but not for an int.

    Args:
        images: (N, 1, S, S).
        targets: by name: maps (N, 1, S, S), which are augmented with the image, or numbers (N,).
        seed: of the augmentation.

    Example:
        >>> slices = TrainingSlices(torch.zeros(2, 1, 16, 16), {"class": torch.tensor([0, 1])})
        >>> slices[1]["image"].shape, int(slices[1]["class"])
        (torch.Size([1, 16, 16]), 1)
    """

    def __init__(self, images: Tensor, targets: Mapping[str, Tensor], seed: int = 0) -> None:
        tensors = {"image": images, **{k: v.float() if v.ndim > 1 else v for k, v in targets.items()}}
        items = [{**{k: v[n] for k, v in tensors.items()}, "sample": n} for n in range(len(images))]
        maps = [name for name, values in targets.items() if values.ndim > 1]
        shift = 0.04 * images.shape[-1]
        moved = RandAffined(
            ["image", *maps],
            prob=1.0,
            rotate_range=math.radians(6),
            translate_range=[shift, shift],
            scale_range=[0.06, 0.06],
            mode=["bilinear", *["nearest" for _ in maps]],
            padding_mode="border",
        )
        super().__init__(items, [RandFlipd(["image", *maps], prob=0.5, spatial_axis=1), moved], seed)


def train_segmenter(
    images: Tensor,
    labels: Tensor,
    classes: int,
    budget: Budget,
    seed: int,
    device: torch.device | str = "cpu",
    parts: Sequence[int] = (),
    width: int = 16,
) -> nn.Module:
    """Trains a U-Net whose logits (B, classes + 1, S, S) have the background first.

    The loss is Dice and cross-entropy in equal parts. First weights and order follow from the seed.

    Args:
        images: (N, 1, S, S) in [-1, 1], S a multiple of 8.
        labels: class indices 0..classes (N, 1, S, S).
        parts: sizes of parts of the images; each batch holds equal shares of them.
        width: channels of the first level.
    Raises:
        UserError: the size does not fit the network.
    """
    side = images.shape[-1]
    if side % 2**LEVELS:
        raise UserError(f"images of {side} pixels: the segmenter takes multiples of {2**LEVELS}")
    channels = (width, 2 * width, 4 * width, 4 * width)

    def make() -> nn.Module:
        return UNet(2, 1, classes + 1, channels, (2,) * LEVELS, num_res_units=1, norm="batch")

    network = seeded(make, seed, "segmenter")
    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)
    items = TrainingSlices(images, {"label": labels}, seed)
    return fit(network, items, {"dice_ce": loss}, "label", budget, seed, device, parts)


def segment(network: nn.Module, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Segments images (N, 1, S, S) into class indices (N, 1, S, S) uint8."""
    batches = [predictions(network, batch, device).argmax(1, keepdim=True) for batch in images.split(64)]
    return torch.cat(batches).to(torch.uint8)


def overlaps(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """Counts of each image, (N, 3, K) float64, see `common.metrics.segmentation.overlap_counts`.

    Args:
        predicted, true: class indices (N, 1, S, S).
    """
    pairs = zip(predicted, true, strict=True)
    return torch.stack([overlap_counts(first, second, classes) for first, second in pairs]).double()


@dataclass(frozen=True)
class ConditionMatch:
    """How far the segmentations of N images agree with one set of conditions.

    Attributes:
        counts: (N, 3, K) of `overlaps`.
        components: of `common.metrics.segmentation.compare_components`.
        resamples: of the N images.
    """

    counts: Tensor
    components: ComponentCounts
    resamples: Resamples

    @classmethod
    def of(cls, predicted: Tensor, conditions: Tensor, classes: int, resamples: Resamples) -> ConditionMatch:
        """Compares segmentations with conditions, class indices (N, 1, S, S) each."""
        components = compare_components(predicted, conditions, classes)
        return cls(overlaps(predicted, conditions, classes), components, resamples)

    def dice(self, index: int | None = None) -> Value:
        """Computes Dice of one structure, or the mean over all; images are pooled."""
        return self.resamples.ratio(self._of(index), mean_dice).within(0, 1)

    def sensitivity(self, index: int | None = None) -> Value:
        """Computes the share of the condition's pixels that the segmenter finds, the mean over structures."""

        def share(sums: Tensor) -> float:
            both, _, expected = sums
            return float((both / expected).nanmean())

        return self.resamples.ratio(self._of(index), share).within(0, 1)

    def invented(self, index: int | None = None) -> Value:
        """Structures per image that the condition does not have."""
        return self._per_image(self.components.invented, index)

    def lost(self, index: int | None = None) -> Value:
        """Structures of the condition per image in which nothing was found."""
        return self._per_image(self.components.lost, index)

    def _of(self, index: int | None) -> Tensor:
        return self.counts if index is None else self.counts[..., index : index + 1]

    def _per_image(self, counts: np.ndarray, index: int | None) -> Value:
        chosen = counts.sum(1) if index is None else counts[:, index]
        return self.resamples.mean(torch.from_numpy(np.asarray(chosen, np.float64)))


def match_others(
    predicted: Tensor, conditions: Tensor, classes: int, resamples: Resamples, seed: int
) -> ConditionMatch:
    """Compares each image with the conditions of `SHIFTS` other images; a single image with empty ones."""
    count = len(predicted)
    order = make_rng(seed, "faithfulness", "shuffled").permutation(count)
    others = np.empty_like(order)
    matches = []
    for shift in range(1, min(SHIFTS, count - 1) + 1):
        others[order] = np.roll(order, -shift)
        matches.append(ConditionMatch.of(predicted, conditions[others], classes, resamples))
    if not matches:
        return ConditionMatch.of(predicted, torch.zeros_like(conditions), classes, resamples)
    names = ("expected", "lost", "invented")
    means = [np.mean([getattr(each.components, name) for each in matches], axis=0) for name in names]
    counts = torch.stack([each.counts for each in matches]).sum(0)
    return ConditionMatch(counts, ComponentCounts(*means), resamples)


def condition_index(own: ConditionMatch, good: ConditionMatch, bad: ConditionMatch) -> Value:
    """Rescales the Dice so that 0 is that of others' conditions and 1 that of held-out real images.

    NaN if the segmenter cannot judge: it finds held-out structures hardly better than others' conditions.
    """
    if not can_judge(good, bad):
        return Value(math.nan, math.nan, math.nan, len(own.counts))
    first, second = len(own.counts), len(good.counts)
    parts = torch.zeros(first + second, 3, *own.counts.shape[1:], dtype=torch.float64)  # (N + M, 3, 3, K)
    parts[:first, 0], parts[:first, 1], parts[first:, 2] = own.counts, bad.counts, good.counts

    def index(sums: Tensor) -> float:
        here, below, above = (mean_dice(part) for part in sums)
        return (here - below) / (above - below) if above > below else math.nan

    return replace(own.resamples.join(good.resamples).ratio(parts, index), n=first)


def can_judge(good: ConditionMatch, bad: ConditionMatch) -> bool:
    """Returns whether the segmenter finds held-out images' own conditions clearly better than others'."""
    return good.dice().mean - bad.dice().mean >= LEAST_MARGIN


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
        shown: largest number of images in the picture of lost and invented structures.
    Returns:
        None if the synthetic images have no conditions, or the real ones no labels.
    Raises:
        UserError: the structures of the sets differ.

    Example:
        >>> images = ImageSet(torch.zeros(4, 1, 16, 16), list("aabb"), list("1234"))
        >>> faithfulness(Sets(images, images, images)) is None  # no labels
        True
    """
    real, heldout, synthetic = sets.real, sets.heldout, sets.synthetic
    if real.labels is None or heldout.labels is None or synthetic.labels is None:
        return None
    structures, budget = structure_names(real, heldout, synthetic), budget or Budget()
    classes = len(structures)
    network = train_segmenter(real.images, real.labels, classes, budget, seed, device)
    predicted = segment(network, synthetic.images, device)
    predicted_heldout = segment(network, heldout.images, device)
    drawn = _resamples(synthetic.volumes or synthetic.patients, resamples, seed, "synthetic")
    own = ConditionMatch.of(predicted, synthetic.labels, classes, drawn)
    drawn_heldout = _resamples(heldout.patients, resamples, seed, "heldout")
    good = ConditionMatch.of(predicted_heldout, heldout.labels, classes, drawn_heldout)
    bad = match_others(predicted, synthetic.labels, classes, drawn, seed)
    index, components = condition_index(own, good, bad), own.components

    def listed(counts: np.ndarray) -> dict[str, dict[str, int]]:
        return {synthetic.names[row]: numbers for row, numbers in components.listed(counts, structures)}

    return Section(
        name="faithfulness",
        title=TITLE,
        statement=_describe(index, own, good, bad),
        figures=_figures(index, {"": own, HELD_OUT: good, SHUFFLED: bad}, structures, seed),
        plots=[_plot(own, good, bad)],
        pictures=_mistakes(synthetic, predicted, components, structures, shown),
        warnings=_warnings(good, bad, known_conditions(synthetic, real), len(synthetic)),
        facts={
            "structures": list(structures),
            "smallest_structure_pixels": smallest_component(predicted.shape[-1]),
            "segmenter": {"network": NAME, "trained_on": len(real), "budget": asdict(budget)},
            "images_that_lose_structures": listed(components.lost),
            "images_that_invent_structures": listed(components.invented),
        },
    )


def known_conditions(synthetic: ImageSet, real: ImageSet) -> int:
    """Counts the synthetic images whose condition is a label that the segmenter learned from."""
    if synthetic.labels is None or real.labels is None:
        return 0
    learned = {label.numpy().tobytes() for label in real.labels}
    return sum(label.numpy().tobytes() in learned for label in synthetic.labels)


def _resamples(patients: Sequence[str], count: int, seed: int, name: str) -> Resamples:
    single = len(set(patients)) == len(patients)  # each image its own: no patients to count
    rng = make_rng(seed, "faithfulness", name)
    return Resamples.draw(None if single else patients, len(patients), count, rng)


def _describe(index: Value, own: ConditionMatch, good: ConditionMatch, bad: ConditionMatch) -> str:
    share = index.text(".2f")
    if not can_judge(good, bad) or not math.isfinite(index.mean):
        verdict = "Cannot be judged: the segmenter is too weak on real images"
    elif not index.bounded:
        verdict = (
            f"Cannot be judged with so few patients (they reach {index.mean:.2f} of what real images do)"
        )
    elif index.low >= FOLLOWS:
        verdict = "The images follow their conditions about as well as real images do"
    elif index.high <= IGNORES:
        verdict = "The images hardly depend on their conditions"
    elif index.low > 0:
        verdict = f"The images follow their conditions in part ({share} of what real images reach)"
    else:
        unclear = "It is not clear that the images follow their conditions"
        verdict = f"{unclear} ({share} of what real ones reach)"
    numbers = (
        f"Dice {own.dice().text('.2f')} in the synthetic images, {good.dice().text('.2f')} in held-out real "
        f"ones, {bad.dice().mean:.2f} against other images' conditions"
    )
    lost, invented = (int((each.sum(1) > 0).sum()) for each in (own.components.lost, own.components.invented))
    faults = f"Of {len(own.counts)} images {lost} lose a structure of their condition, {invented} have more"
    return f"{verdict}: {numbers}. {faults}."


def _figures(
    index: Value, matches: Mapping[str, ConditionMatch], structures: Sequence[str], seed: int
) -> list[Figure]:
    one, zero = Value(1.0, 1.0, 1.0, matches[HELD_OUT].dice().n), Value(0.0, 0.0, 0.0, index.n)
    note = "the Dice rescaled: 0 for others' conditions, 1 for held-out real images"
    ends = {HELD_OUT: one, SHUFFLED: zero}
    figures = [Figure("condition_faithfulness", index, HIGHER, ends, EXTRACTOR, seed, note)]
    indices: dict[str, int | None] = {"": None}
    if len(structures) > 1:
        pixels = torch.cat([match.counts[:, 2] for match in matches.values()]).sum(0)  # (K,) pixels
        indices |= {f"_{name}": index for index, name in enumerate(structures) if pixels[index]}
    measures = {
        "dice": (ConditionMatch.dice, HIGHER, ""),
        "sensitivity": (ConditionMatch.sensitivity, HIGHER, "share of the condition's pixels that was found"),
        "false_structures": (
            ConditionMatch.invented,
            LOWER,
            "per image; found where the condition does not have them",
        ),
        "lost_structures": (
            ConditionMatch.lost,
            LOWER,
            "per image; nothing found where the condition has one",
        ),
    }
    for suffix, number in indices.items():
        for name, (measure, better, note) in measures.items():
            values = {baseline: measure(match, number) for baseline, match in matches.items()}
            own = values.pop("")
            figures.append(
                Figure(f"{name}{suffix}", own, better, values, EXTRACTOR, seed, "" if suffix else note)
            )
    return figures


def _plot(own: ConditionMatch, good: ConditionMatch, bad: ConditionMatch) -> Plot:
    """Plots the distribution of the single images' Dice."""
    edges = np.linspace(0, 1, 11)
    lines = []
    for name, match in (("synthetic", own), ("held-out real", good), ("others' conditions", bad)):
        values = np.array([mean_dice(counts) for counts in match.counts])
        values = values[np.isfinite(values)]
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        lines.append(Line(name, edges.tolist(), share.tolist()))
    caption = "Mean over the structures that the condition or the segmenter has, image by image."
    return Plot("Dice of the single images", "Dice", "share of the images", lines, caption, "steps")


def _mistakes(
    synthetic: ImageSet, predicted: Tensor, components: ComponentCounts, structures: Sequence[str], shown: int
) -> list[Picture]:
    """Shows the images that lose or invent most structures, with conditions and segmentations."""
    faults = components.lost + components.invented
    rows = [row for row, _ in components.listed(faults, structures)][:shown]
    if not rows or synthetic.labels is None:
        return []
    numbers = [[int(each[row].sum()) for each in (components.lost, components.invented)] for row in rows]
    names = [
        f"{synthetic.names[row]}: {lost} lost, {invented} invented"
        for row, (lost, invented) in zip(rows, numbers, strict=True)
    ]
    columns = [
        class_picture(synthetic.labels[rows]),
        unit_range(synthetic.images[rows]),
        class_picture(predicted[rows]),
    ]
    png = sheet_png(columns, ("condition", "synthetic", "found in it"), names, structures)
    total = int((faults.sum(1) > 0).sum())
    caption = (
        f"The {len(rows)} with most of {total} images that lose or invent a structure. Black is background."
    )
    return [Picture("Images that lose or invent structures", caption, png)]


def _warnings(good: ConditionMatch, bad: ConditionMatch, known: int, count: int) -> list[str]:
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

"""The distortion ladder: does a metric score what a radiologist would call worse as worse?

Held-out real slices are compared with real slices of other patients, once as they are and once distorted. An
extractor sees layout where anatomy in the wrong place scores above what real slices score against real ones.
One that does not is blind to layout: its numbers say nothing about anatomy, and it chooses no checkpoint.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from common.errors import UserError
from common.files import atomic_write
from common.metrics.features import FeatureExtractor, extract
from common.metrics.kid import Patients, gaussian_blur, kid
from common.rng import make_rng

REPEATS = 20
Distance = Callable[[Tensor, Tensor, Patients, Patients], float]
UPPER = 0.975  # quantile of real against real over the splits
LEAST = 4  # patients: two a half, whose slices are compared with each other's alone
SEED = 0  # of shuffled blocks and noise: part of the ladder's definition


@dataclass(frozen=True)
class Distortion:
    """One step of the ladder.

    Attributes:
        name: for tables and pictures.
        family: distortions of one family become stronger in the order of `LADDER`, and so must their scores.
        apply: images (N, 1, H, W) in [-1, 1] -> the same shape and range.
    """

    name: str
    family: str
    apply: Callable[[Tensor], Tensor]


def brightened(images: Tensor, share: float) -> Tensor:
    """By ``share`` of the range from black to white, cut at white."""
    return (images + 2 * share).clamp(-1, 1)


def noisy(images: Tensor, share: float) -> Tensor:
    """With white Gaussian noise, its standard deviation a ``share`` of the range; cut at black and white."""
    drawn = make_rng(SEED, "ladder", "noise").standard_normal(tuple(images.shape))
    return (images + 2 * share * torch.from_numpy(drawn).to(images)).clamp(-1, 1)


def blocks_shuffled(images: Tensor, count: int) -> Tensor:
    """Cut into ``count`` x ``count`` blocks that change places, in each image otherwise; 2 are quadrants.

    A remainder of pixels at the lower and right border stays where it is.
    """
    height, width = images.shape[2] // count, images.shape[3] // count
    numbers = make_rng(SEED, "ladder", "blocks", count)
    shuffled = images.clone()
    for image, source in zip(shuffled, images, strict=True):
        order = _moving(count**2, numbers)
        for place, origin in enumerate(order):
            (y, x), (v, u) = divmod(place, count), divmod(int(origin), count)
            block = source[:, v * height : (v + 1) * height, u * width : (u + 1) * width]
            image[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = block
    return shuffled


def _moving(count: int, numbers: np.random.Generator) -> np.ndarray:
    """An order of 0 .. count - 1 in which more than half are not in their place."""
    while True:
        order = numbers.permutation(count)
        if (order != np.arange(count)).sum() > count / 2:
            return order


def upside_down(images: Tensor) -> Tensor:
    """The spine in front."""
    return images.flip(-2)


def two_right_lungs(images: Tensor) -> Tensor:
    """The image's left half, which shows the patient's right side, mirrored onto the other half."""
    half = images.shape[-1] // 2
    mirrored = images.clone()
    mirrored[..., -half:] = images[..., :half].flip(-1)
    return mirrored


def other_window(images: Tensor, lower: float = 0.1, upper: float = 0.7) -> Tensor:
    """As a narrower window would show them: these shares of the range become black and white."""
    unit = (images + 1) / 2
    return ((unit - lower) / (upper - lower)).clamp(0, 1) * 2 - 1


def mean_image(images: Tensor) -> Tensor:
    """Each image is the mean of all."""
    return images.mean(0, keepdim=True).expand_as(images)


UPSIDE_DOWN, SHUFFLED, MEAN_IMAGE = "upside down", "quadrants shuffled", "mean image"
LAYOUT = (UPSIDE_DOWN, SHUFFLED, MEAN_IMAGE)
"""What an extractor that sees layout scores above real against real."""

LADDER = (
    *(
        Distortion(f"blurred, σ {sigma} px", "blur", partial(gaussian_blur, sigma=sigma))
        for sigma in (1, 2, 4)
    ),
    *(
        Distortion(f"brighter by {share:.0%}", "brightness", partial(brightened, share=share))
        for share in (0.05, 0.1, 0.2)
    ),
    *(Distortion(f"noise of {share:.0%}", "noise", partial(noisy, share=share)) for share in (0.05, 0.1)),
    Distortion("other window", "window", other_window),
    Distortion("two right lungs", "mirror", two_right_lungs),
    Distortion(UPSIDE_DOWN, "flip", upside_down),
    Distortion(SHUFFLED, "blocks", partial(blocks_shuffled, count=2)),
    Distortion("8 × 8 blocks shuffled", "blocks", partial(blocks_shuffled, count=8)),
    Distortion(MEAN_IMAGE, "mean", mean_image),
)


@dataclass(frozen=True)
class Climb:
    """What one extractor made of the ladder: KID, which is 0 between sets of one distribution.

    Attributes:
        extractor: its name.
        real: real slices against real slices of other patients, the mean over the splits.
        bound: the upper bound of that, see `UPPER`.
        scores: real against distorted, the mean over the splits, by the distortion's name.
    """

    extractor: str
    real: float
    bound: float
    scores: dict[str, float]

    @property
    def unseen(self) -> list[str]:
        """The distortions that score as real slices do."""
        return [name for name, score in self.scores.items() if not score > self.bound]

    @property
    def sees_layout(self) -> bool:
        """Whether all of `LAYOUT` score above the bound."""
        return all(self.scores[name] > self.bound for name in LAYOUT)

    def disordered(self, ladder: Sequence[Distortion] = LADDER) -> list[str]:
        """The families in which a stronger distortion does not score above a weaker one."""
        found = []
        for family in dict.fromkeys(step.family for step in ladder):
            scores = [self.scores[step.name] for step in ladder if step.family == family]
            if any(not later > earlier for earlier, later in pairwise(scores)):
                found.append(family)
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "extractor": self.extractor,
            "sees_layout": self.sees_layout,
            "disordered": self.disordered(),
            "real_real": {"mean": self.real, "upper": self.bound},
            "kid": self.scores,
        }


def climb(
    images: Tensor,
    patients: Sequence[str],
    extractor: FeatureExtractor,
    repeats: int = REPEATS,
    seed: int = 0,
    ladder: Sequence[Distortion] = LADDER,
    distance: Distance = kid,
) -> Climb:
    """Scores every distortion, and real slices, against real slices of other patients.

    The patients are split into halves ``repeats`` times; one half stays as it is, the other is distorted.
    Features are computed once a distortion.

    Args:
        images: real ones (N, 1, H, W) in [-1, 1].
        patients: whose each image is.
        extractor: on the CPU.
        distance: of two sets of features (n, D) and (m, D) whose images are of these patients, as `kid`.
    Raises:
        UserError: fewer than four patients.
    """
    halves = list(_halves(patients, repeats, seed))
    real = extract(extractor, images)

    def apart(features: Tensor) -> list[float]:
        return [
            distance(
                real[first],
                features[second],
                [patients[place] for place in first],
                [patients[place] for place in second],
            )
            for first, second in halves
        ]

    within = apart(real)
    scores = {}
    for step in ladder:
        distorted = step.apply(images)
        constant = distorted.stride(0) == 0  # one image, expanded: it needs to be looked at only once
        features = extract(extractor, distorted[:1] if constant else distorted).expand_as(real)
        scores[step.name] = float(np.mean(apart(features)))
    return Climb(extractor.name, float(np.mean(within)), float(np.quantile(within, UPPER)), scores)


def evenly(patients: Sequence[str], at_most: int) -> list[int]:
    """The places of up to ``at_most`` images: the first of each patient, then the second of each ..."""
    seen: Counter[str] = Counter()
    rounds = []
    for place, name in enumerate(patients):
        rounds.append((seen[name], place))
        seen[name] += 1
    return sorted(place for _, place in sorted(rounds)[:at_most])


def _halves(patients: Sequence[str], repeats: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """The places of the images of one half of the patients and of the other, ``repeats`` times."""
    names = sorted(set(patients))
    if len(names) < LEAST:
        raise UserError(
            f"the distortion ladder needs images of at least {LEAST} patients, not {len(names)}; "
            "give more, or say whose a file is with --patient_pattern"
        )
    for repeat in range(repeats):
        drawn = make_rng(seed, "ladder", "halves", repeat).permutation(len(names))
        chosen = {names[place] for place in drawn[: len(names) // 2]}
        first = [place for place, name in enumerate(patients) if name in chosen]
        second = [place for place, name in enumerate(patients) if name not in chosen]
        yield first, second


SEEN, UNSEEN, REAL = "#0072b2", "#b34700", "#4d4d4d"  # Okabe & Ito 2008, the darker ones
ROW, COLUMN, NAMES = 0.72, 3.0, 3.2  # inches
LOWEST = 0.05  # of the axis, in units of the upper bound
SMALLEST = 1e-4  # bound that is a unit; few splits may give one below 0


def ladder_picture(
    path: str | os.PathLike[str],
    images: Tensor,
    climbs: Sequence[Climb],
    example: int = 0,
    ladder: Sequence[Distortion] = LADDER,
    source: str = "",
) -> None:
    """Draws what each distortion looks like and what each extractor says of it.

    A bar is the score in units of the upper bound of real against real (the line at 1), on a logarithmic
    axis; the number beside it is the KID itself. Bars that do not pass the line are marked "as real".

    Args:
        path: the PNG, written atomically.
        images: what was distorted, (N, 1, H, W) in [-1, 1].
        climbs: one an extractor, at least one.
        example: which image is shown.
        source: where the images are from, for the foot of the picture.
    """
    rows = len(ladder) + 1
    size = (NAMES + COLUMN * len(climbs), ROW * rows + 1.5)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        rows, 2 + len(climbs), width_ratios=[1, 2.2, *[COLUMN / (NAMES / 3.2)] * len(climbs)]
    )
    shown = [("real", images[example])]
    shown += [(step.name, step.apply(images)[example]) for step in ladder]
    for row, (name, image) in enumerate(shown):
        _example(figure.add_subplot(grid[row, 0]), image[0].numpy())
        words = figure.add_subplot(grid[row, 1])
        words.axis("off")
        words.text(0, 0.5, name, va="center", fontsize=12)
    top = max(max(climb.scores.values()) / _unit(climb) for climb in climbs)
    for column, climb in enumerate(climbs):
        _bars(figure.add_subplot(grid[:, column + 2]), climb, ladder, top)
    figure.suptitle("The distortion ladder: KID of real slices against distorted ones of other patients")
    if source:
        figure.supxlabel(source, fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _example(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes.axis("off")


def _bars(axes: Axes, climb: Climb, ladder: Sequence[Distortion], top: float) -> None:
    """One bar a row, aligned with the example images."""
    scores = [climb.real, *(climb.scores[step.name] for step in ladder)]
    for row, score in enumerate(scores):
        length, seen = score / _unit(climb), score > climb.bound
        colour = REAL if row == 0 else SEEN if seen else UNSEEN
        axes.barh(row, max(length, LOWEST), height=0.55, color=colour)
        words = f"{score:.3f}" if row == 0 or seen else f"{score:.3f}  as real"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(
            max(length, LOWEST) * 1.2, row, words, va="center", fontsize=11, color=colour, bbox=background
        )
    axes.axvline(1, color=REAL, linewidth=1, zorder=0.5)
    label = "sees layout" if climb.sees_layout else "blind to layout"
    axes.set_title(f"{climb.extractor}\n{label}", fontsize=13, color=SEEN if climb.sees_layout else UNSEEN)
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST, max(top, 1) * 12), ylim=(len(scores) - 0.5, -0.5), yticks=[])
    axes.set_xlabel(f"in units of the bound, {climb.bound:.3f}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _unit(climb: Climb) -> float:
    return max(climb.bound, SMALLEST)

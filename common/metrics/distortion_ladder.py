"""The distortion ladder: does a metric call images worse that a radiologist would call worse?

Held-out real slices are compared with real slices of other patients, as they are and distorted. A feature
extractor sees layout if anatomy in the wrong place scores above what real slices score against real ones.
An extractor that is blind to layout says nothing about anatomy and may not choose a checkpoint.
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
from matplotlib.figure import Figure
from skimage.util import montage
from torch import Tensor

from common.errors import UserError
from common.files import atomic_write
from common.metrics.baselines import mean_image
from common.metrics.features import FeatureExtractor, extract
from common.metrics.kid import Patients, gaussian_blur, kid
from common.rng import make_rng

Distance = Callable[[Tensor, Tensor, Patients, Patients], float]
REPEATS = 20
UPPER = 0.975  # quantile over the splits of real against real
FEWEST_PATIENTS = 4  # two in each half, since slices of one patient form no pair
SEED = 0  # of shuffled blocks and noise; part of the ladder's definition


@dataclass(frozen=True)
class Distortion:
    """One step of the ladder.

    Attributes:
        name: for tables and figures.
        family: distortions of one family become stronger in the order of `LADDER`, and so must their scores.
        apply: images (N, 1, H, W) in [-1, 1] -> the same shape and range.
    """

    name: str
    family: str
    apply: Callable[[Tensor], Tensor]


def brighten(images: Tensor, share: float) -> Tensor:
    """Adds ``share`` of the range from black to white, clipped at white."""
    return (images + 2 * share).clamp(-1, 1)


def add_noise(images: Tensor, share: float) -> Tensor:
    """Adds white Gaussian noise with a standard deviation of ``share`` of the range, clipped."""
    drawn = make_rng(SEED, "ladder", "noise").standard_normal(tuple(images.shape))
    return (images + 2 * share * torch.from_numpy(drawn).to(images)).clamp(-1, 1)


def shuffle_blocks(images: Tensor, count: int) -> Tensor:
    """Shuffles ``count`` x ``count`` blocks of each image so that more than half of them move.

    Remaining pixels at the lower and right border stay where they are.
    """
    height, width = images.shape[2] // count, images.shape[3] // count
    rng = make_rng(SEED, "ladder", "blocks", count)
    shuffled = images.clone()
    for image, source in zip(shuffled, images, strict=True):
        order = rng.permutation(count**2)
        while (order != np.arange(count**2)).sum() <= count**2 / 2:
            order = rng.permutation(count**2)
        for index, origin in enumerate(order):
            (y, x), (v, u) = divmod(index, count), divmod(int(origin), count)
            block = source[:, v * height : (v + 1) * height, u * width : (u + 1) * width]
            image[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = block
    return shuffled


def mirror_right_lung(images: Tensor) -> Tensor:
    """Replaces the right half of the image by the left half (the patient's right side), mirrored."""
    half = images.shape[-1] // 2
    mirrored = images.clone()
    mirrored[..., -half:] = images[..., :half].flip(-1)
    return mirrored


def narrow_window(images: Tensor, lower: float = 0.1, upper: float = 0.7) -> Tensor:
    """Shows images in a narrower window: these shares of the range become black and white."""
    unit = (images + 1) / 2
    return ((unit - lower) / (upper - lower)).clamp(0, 1) * 2 - 1


UPSIDE_DOWN, SHUFFLED, MEAN_IMAGE = "upside down", "quadrants shuffled", "mean image"
LAYOUT = (UPSIDE_DOWN, SHUFFLED, MEAN_IMAGE)
"""The distortions that an extractor which sees layout scores above real against real."""

LADDER = (
    *(
        Distortion(f"blurred, σ {sigma} px", "blur", partial(gaussian_blur, sigma=sigma))
        for sigma in (1, 2, 4)
    ),
    *(
        Distortion(f"brighter by {share:.0%}", "brightness", partial(brighten, share=share))
        for share in (0.05, 0.1, 0.2)
    ),
    *(Distortion(f"noise of {share:.0%}", "noise", partial(add_noise, share=share)) for share in (0.05, 0.1)),
    Distortion("other window", "window", narrow_window),
    Distortion("two right lungs", "mirror", mirror_right_lung),
    Distortion(UPSIDE_DOWN, "flip", lambda images: images.flip(-2)),
    Distortion(SHUFFLED, "blocks", partial(shuffle_blocks, count=2)),
    Distortion("8 × 8 blocks shuffled", "blocks", partial(shuffle_blocks, count=8)),
    Distortion(MEAN_IMAGE, "mean", lambda images: mean_image(images, len(images))),
)


@dataclass(frozen=True)
class LadderScores:
    """The scores of one extractor: KID, which is 0 between sets of one distribution.

    Attributes:
        extractor: its name.
        real: real slices against real slices of other patients, the mean over the splits.
        bound: the upper bound of that, the quantile `UPPER` over the splits.
        scores: real against distorted by the distortion's name, the mean over the splits.
    """

    extractor: str
    real: float
    bound: float
    scores: dict[str, float]

    @property
    def sees_layout(self) -> bool:
        """Whether all of `LAYOUT` score above the bound."""
        return all(self.scores[name] > self.bound for name in LAYOUT)

    def disordered(self, ladder: Sequence[Distortion] = LADDER) -> list[str]:
        """Lists the families in which a stronger distortion does not score above a weaker one."""
        result = []
        for family in dict.fromkeys(step.family for step in ladder):
            scores = [self.scores[step.name] for step in ladder if step.family == family]
            if any(not later > earlier for earlier, later in pairwise(scores)):
                result.append(family)
        return result

    def as_json(self) -> dict[str, Any]:
        """Returns the scores as plain data."""
        return {
            "extractor": self.extractor,
            "sees_layout": self.sees_layout,
            "disordered": self.disordered(),
            "real_real": {"mean": self.real, "upper": self.bound},
            "kid": self.scores,
        }


def score_ladder(
    images: Tensor,
    patients: Sequence[str],
    extractor: FeatureExtractor,
    repeats: int = REPEATS,
    seed: int = 0,
    ladder: Sequence[Distortion] = LADDER,
    distance: Distance = kid,
) -> LadderScores:
    """Scores every distortion, and undistorted slices, against real slices of other patients.

    The patients are split into halves ``repeats`` times; one half stays as it is, the other is distorted.

    Args:
        images: real ones (N, 1, H, W) in [-1, 1].
        patients: one id per image.
        extractor: on the CPU.
        distance: of two sets of features (n, D) and (m, D) and their patients, like `kid`.
    Raises:
        UserError: fewer than four patients.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> scores = score_ladder(images, list("abcdefgh"), RandomVGG(), repeats=2, ladder=LADDER[:3])
        >>> list(scores.scores)
        ['blurred, σ 1 px', 'blurred, σ 2 px', 'blurred, σ 4 px']
    """
    halves = list(_halves(patients, repeats, seed))
    real = extract(extractor, images)

    def score(features: Tensor) -> list[float]:
        ids = [[[patients[index] for index in half] for half in pair] for pair in halves]
        pairs = zip(halves, ids, strict=True)
        return [distance(real[one], features[other], *names) for (one, other), names in pairs]

    within, scores = score(real), {}
    for step in ladder:
        distorted = step.apply(images)
        constant = distorted.stride(0) == 0  # one image, expanded: its features are computed once
        features = extract(extractor, distorted[:1] if constant else distorted).expand_as(real)
        scores[step.name] = float(np.mean(score(features)))
    return LadderScores(extractor.name, float(np.mean(within)), float(np.quantile(within, UPPER)), scores)


def choose_evenly(patients: Sequence[str], at_most: int) -> list[int]:
    """Chooses up to ``at_most`` images: first the first of each patient, then the second, and so on.

    Example:
        >>> choose_evenly(["a", "a", "a", "b"], 2)
        [0, 3]
    """
    counts: Counter[str] = Counter()
    rounds = []
    for index, name in enumerate(patients):
        rounds.append((counts[name], index))
        counts[name] += 1
    return sorted(index for _, index in sorted(rounds)[:at_most])


def _halves(patients: Sequence[str], repeats: int, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the indices of the images of one half of the patients and of the other."""
    names = sorted(set(patients))
    if len(names) < FEWEST_PATIENTS:
        raise UserError(
            f"the distortion ladder needs images of at least {FEWEST_PATIENTS} patients, not {len(names)}; "
            "give more, or say whose a file is with --patient_pattern"
        )
    for repeat in range(repeats):
        order = make_rng(seed, "ladder", "halves", repeat).permutation(len(names))
        chosen = {names[index] for index in order[: len(names) // 2]}
        first = [index for index, name in enumerate(patients) if name in chosen]
        yield first, [index for index, name in enumerate(patients) if name not in chosen]


SEEN, UNSEEN, REAL = "#0072b2", "#b34700", "#4d4d4d"  # Okabe & Ito 2008, the darker ones
ROW, COLUMN = 0.72, 3.0  # inches
LOWEST = 0.05  # of the axis, in units of the upper bound
SMALLEST = 1e-4  # bound that is a unit; few splits may give one below 0


def save_ladder_figure(
    path: str | os.PathLike[str],
    images: Tensor,
    results: Sequence[LadderScores],
    example: int = 0,
    ladder: Sequence[Distortion] = LADDER,
    source: str = "",
) -> None:
    """Draws an example of each distortion and how each extractor scores it.

    A bar is the score in units of the upper bound of real against real (the line at 1) on a logarithmic axis;
    the number beside it is the KID itself. Bars that do not pass the line are marked "as real".

    Args:
        path: the PNG file, written atomically.
        images: what was distorted, (N, 1, H, W) in [-1, 1].
        results: at least one extractor's.
        example: index of the image that is shown.
        source: where the images are from, for the foot of the figure.

    Example:
        >>> import tempfile
        >>> images = torch.linspace(-1, 1, 512).view(2, 1, 16, 16)
        >>> scores = LadderScores("randvgg", 0.1, 0.5, {step.name: 1.0 for step in LADDER})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_ladder_figure(f"{folder}/ladder.png", images, [scores])
    """
    rows, names = len(ladder) + 1, ["real", *(step.name for step in ladder)]
    figure = Figure(figsize=(3 + COLUMN * len(results), 2 + ROW * rows), layout="constrained")
    widths = [0.3, *[1.0] * len(results)]
    first, *others = figure.subplots(1, 1 + len(results), width_ratios=widths, sharey=True)
    shown = torch.stack([images[example, 0], *(step.apply(images)[example, 0] for step in ladder)])
    column = montage(shown.numpy(), fill=1.0, grid_shape=(rows, 1), padding_width=1)
    first.imshow(column, cmap="gray", vmin=-1, vmax=1, aspect="auto", extent=(0, 1, rows - 0.5, -0.5))
    first.set(xticks=[], yticks=range(rows), yticklabels=names)
    first.tick_params(length=0, labelsize=12)
    top = max(max(scores.scores.values()) / max(scores.bound, SMALLEST) for scores in results)
    for axes, result in zip(others, results, strict=True):
        _draw_bars(axes, result, [result.real, *(result.scores[step.name] for step in ladder)], top)
    figure.suptitle("The distortion ladder: KID of real slices against distorted ones of other patients")
    figure.supxlabel(source, fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw_bars(axes: Axes, result: LadderScores, scores: Sequence[float], top: float) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for row, score in enumerate(scores):
        length, above = max(score / max(result.bound, SMALLEST), LOWEST), score > result.bound
        colour = REAL if row == 0 else SEEN if above else UNSEEN
        axes.barh(row, length, height=0.55, color=colour)
        text = f"{score:.3f}" if row == 0 or above else f"{score:.3f}  as real"
        axes.text(length * 1.2, row, text, va="center", fontsize=11, color=colour, bbox=box)
    axes.axvline(1, color=REAL, linewidth=1, zorder=0.5)
    label = "sees layout" if result.sees_layout else "blind to layout"
    axes.set_title(f"{result.extractor}\n{label}", fontsize=13, color=SEEN if result.sees_layout else UNSEEN)
    axes.set(xscale="log", xlim=(LOWEST, max(top, 1) * 12))
    axes.set_xlabel(f"in units of the bound, {result.bound:.3f}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)

"""Fidelity and diversity: how much the synthetic set resembles real images, with baselines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.metrics.baselines import mean_image
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.diversity import Classifier, class_probabilities, score_with_interval
from common.metrics.evaluate import BLURRED, RealImages, SetEvaluator, better
from common.metrics.features import FeatureExtractor
from common.metrics.fid import fid
from common.metrics.prdc import NEIGHBOURS
from common.rng import make_rng
from common.trust.image_sets import Sets
from common.trust.report import HIGHER, Figure, Line, Plot, Section

PARTS = (1, 2, 3, 4)
"""Numbers of parts into which both sets are cut; all parts are measured, so each image counts in each cut."""
LEAST = 2 * PARTS[-1]
"""Images that a set must have, so that no part has fewer than two."""
LEFT_OUT = 20
"""Parts of each set that the jackknife leaves out in turn; each costs ten matrix decompositions."""
BIASED = 0.1
"""Share of FID that extrapolation removes from which on a warning is given."""
REAL_REAL, MEAN_IMAGE = "real_real", "mean_image"
NOTES = {
    "fid": "Frechet distance of features; it grows as images get fewer, so compare values of equal n.",
    "fid_infinity": "FID where a line over 1 / n meets infinitely many patients (Chong & Forsyth 2020).",
    "kid": "Kernel distance of features over pairs of different patients; unbiased, may fall below 0.",
    "excess_kid": "KID rescaled: 0 for real images of others, 1 for held-out images blurred by a pixel.",
    "is": "Takes no account of real images: compare it with theirs.",
    "precision": "Share of synthetic images that lie among the real ones.",
    "recall": "Share of real images that the synthetic ones reach.",
    "density": "As precision, counted so that single odd real images do not raise it; may exceed 1.",
    "coverage": "Share of real images with a synthetic one near by; odd synthetic images do not raise it.",
    "pair_ssim": "Mean SSIM of pairs of synthetic images: higher than real pairs' is less diverse.",
    "pair_ms_ssim": "Mean MS-SSIM of pairs of synthetic images: higher than real pairs' is less diverse.",
    "pair_distance": "Mean feature distance of synthetic pairs: lower than real pairs' is less diverse.",
}


@dataclass(frozen=True)
class Extrapolation:
    """A line through FID over the inverse number of images.

    Attributes:
        value: its value at 0, for infinitely many patients, with an interval; at least 0.
        numbers: how many generated images a part has, for each of `PARTS`.
        means: the mean FID of the parts of each cut.
    """

    value: Value
    numbers: Sequence[float]
    means: Sequence[float]


def fid_infinity(real: Tensor, fake: Tensor, resamples: Resamples, seed: int = 0) -> Extrapolation | None:
    """Extrapolates FID to infinitely many patients; None for fewer than `LEAST` images or `PARTS` patients.

    Chong & Forsyth (2020) thin the generated images alone, as their real statistics rest on 50 000 images.
    Here both sets are small, and each adds a bias of about 1 / number (their equation 5): both are thinned
    alike, and one line over the remaining share removes both. The sets are cut by patient, slices of one
    patient stay together. The line is straight where there are more patients than features; with fewer it
    bends, and the value is then a guess.

    Args:
        real, fake: features (N, D) and (M, D).
        resamples: of both sets side by side (N + M); `LEFT_OUT` parts of each set are left out for the
            interval. There is none where a cut has a part of a single patient.
        seed: of the cuts.
    """
    split, groups = len(real), torch.from_numpy(resamples.groups)
    sides = [groups[:split], groups[split:]]
    if min(len(real), len(fake)) < LEAST or min(len(side.unique()) for side in sides) < PARTS[-1]:
        return None
    cuts = [_cut(sides, parts, seed) for parts in PARTS]
    numbers = [_thinning(sides, cut) for cut in cuts]

    def means(weights: Tensor) -> list[float]:
        return [_mean_fid(real, fake, weights * part) for part in cuts]

    def intercept(weights: Tensor) -> float:
        """Computes the value at infinitely many patients of the least-squares line over the thinning."""
        return float(np.polynomial.Polynomial.fit(numbers, means(weights), 1).convert().coef[0])

    value = resamples.distance(intercept, LEFT_OUT)
    ends = (max(value.low, 0.0), max(value.high, 0.0)) if value.bounded else (math.nan, math.nan)
    value = replace(value, mean=max(value.mean, 0.0), low=ends[0], high=ends[1], n=len(fake))
    whole = torch.ones(len(real) + len(fake), dtype=torch.float64)
    return Extrapolation(value, [len(fake) / each for each in numbers], means(whole))


def _cut(sides: Sequence[Tensor], parts: int, seed: int) -> Tensor:
    """Assigns images to parts: (parts, N + M) of 0 and 1, a single 1 in each column.

    Patients are dealt in turn, those with most images first and equals in random order, so that parts have
    about as many patients and images.
    """
    rng, which = make_rng(seed, "fid infinity", parts), []
    for side in sides:
        names, indices, counts = side.unique(return_inverse=True, return_counts=True)
        order = rng.permutation(len(names))
        order = order[np.argsort(-counts.numpy()[order], kind="stable")]
        dealt = np.empty(len(names), np.int64)
        dealt[order] = np.arange(len(names)) % parts
        which.append(torch.from_numpy(dealt)[indices])
    return (torch.cat(which) == torch.arange(parts)[:, None]).double()


def _thinning(sides: Sequence[Tensor], cut: Tensor) -> float:
    """Patients of the whole relative to those of a part, the mean over parts and both sets."""
    split = len(sides[0])
    halves = zip(sides, (cut[:, :split], cut[:, split:]), strict=True)
    ratios = [
        len(side.unique()) / len(side[part > 0].unique()) for side, columns in halves for part in columns
    ]
    return float(np.mean(ratios))


def _mean_fid(real: Tensor, fake: Tensor, weights: Tensor) -> float:
    """Computes the mean FID over the parts, with weights (parts, N + M); NaN if one has too few images."""
    sides = [(part[: len(real)], part[len(real) :]) for part in weights]
    if any(float(side.sum()) < 2 for pair in sides for side in pair):
        return math.nan
    return float(np.mean([fid(real, fake, *pair) for pair in sides]))


@dataclass(frozen=True)
class Measured:
    """The measures of one set: values by metric, and the extrapolation of FID (None for very few images)."""

    values: Mapping[str, Value]
    line: Extrapolation | None = None


class SetMeasures:
    """Measures sets against the held-out images, whose features are computed once.

    Args:
        sets: what the report is about.
        extractor, classifier: on ``device`` already.
        seed, resamples: of all random numbers, and of the bootstrap-t.

    Attributes:
        k: neighbours of precision, recall, density and coverage; fewer than usual for very few images.
    """

    def __init__(
        self,
        sets: Sets,
        extractor: FeatureExtractor,
        seed: int,
        resamples: int,
        classifier: Classifier | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        real, heldout = sets.real, sets.heldout
        sides = RealImages(heldout.images, heldout.patients, heldout.images, real.images, real.patients)
        # the smallest number of other patients' images that an image of a set has
        others = [len(part) - max(Counter(part.patients).values(), default=0) for part in (real, heldout)]
        self.k = max(1, min(NEIGHBOURS, *others, len(sets.synthetic) - 1))
        self.evaluator = SetEvaluator(sides, extractor, seed, resamples, self.k, device)
        self.sets, self.seed, self.count = sets, seed, resamples
        self.classifier, self.device = classifier, device

    def __call__(
        self, images: Tensor, features: Tensor | None = None, patients: Sequence[str] | None = None
    ) -> Measured:
        """Measures images (M, 1, S, S).

        Args:
            features: (M, D), if they exist already.
            patients: of real images, or the volumes of generated slices.
        """
        features = self.evaluator.extract(images) if features is None else features
        drawn = self._resamples(patients, len(images))
        line = fid_infinity(
            self.evaluator.features, features, self.evaluator.resamples.join(drawn), self.seed
        )
        name = self.evaluator.extractor.name
        values = self.evaluator.likeness(images, features, patients)
        first = {f"fid_{name}": values.pop(f"fid_{name}")}
        if line is not None:
            first[f"fid_infinity_{name}"] = line.value
        return Measured({**first, **values, **self._score(images, drawn)}, line)

    def baselines(self, count: int) -> dict[str, Measured]:
        """Measures the sets that stand in for ``count`` synthetic images.

        ``real_real`` are real images (all if there are fewer), ``mean_image`` their mean, ``blurred_real``
        the held-out images, blurred. FID cannot leave a patient's own images out: the blurred ones have none.
        """
        order = self.evaluator.stand_in(count)
        taken = self.sets.real.select(order.tolist())
        mean = mean_image(self.sets.real.images, count)
        (blurred, features), patients = self.evaluator.blurred, self.sets.heldout.patients
        values = self.evaluator.likeness(blurred, features, patients) | self.evaluator.no_fid(len(blurred))
        values |= self._score(blurred, self._resamples(patients, len(blurred)))
        return {
            REAL_REAL: self(taken.images, self.evaluator.training[order], taken.patients),
            MEAN_IMAGE: self(mean, self.evaluator.extract(mean[:1]).expand(count, -1)),
            BLURRED: Measured(values),
        }

    def _score(self, images: Tensor, drawn: Resamples) -> dict[str, Value]:
        if self.classifier is None:
            return {}
        probabilities = class_probabilities(self.classifier, images, device=self.device)
        return {f"is_{self.classifier.name}": score_with_interval(probabilities, drawn)}

    def _resamples(self, patients: Sequence[str] | None, length: int) -> Resamples:
        return Resamples.draw(patients, length, self.count, make_rng(self.seed, "trust", "fidelity", length))


def fidelity(
    sets: Sets,
    extractor: FeatureExtractor,
    seed: int = 0,
    resamples: int = 500,
    classifier: Classifier | None = None,
    device: torch.device | str = "cpu",
) -> Section:
    """Compares the synthetic images and the baselines with the held-out images, which no generator has seen.

    Baselines: ``real_real`` (as many real images as there are synthetic ones), ``mean_image`` (their mean)
        and ``blurred_real`` (the held-out images, blurred).

    Args:
        extractor: on ``device`` already; its name becomes part of the names of measures on features.
        resamples: of the bootstrap-t; intervals are over patients.
        classifier: for the inception score, on ``device`` already; None to leave it out.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> from common.trust.image_sets import ImageSet
        >>> images = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> parts = [ImageSet(part, list("abcd"), list("1234")) for part in images.split(4)]
        >>> fidelity(Sets(*parts), RandomVGG(), resamples=20).figures[0].name
        'fid_randvgg'
    """
    measures = SetMeasures(sets, extractor, seed, resamples, classifier, device)
    synthetic = measures(sets.synthetic.images, None, sets.synthetic.volumes)
    baselines = measures.baselines(len(sets.synthetic))
    figures = []
    for name, value in synthetic.values.items():
        network = "" if name.startswith("pair_") and name.endswith("ssim") else extractor.name
        if classifier is not None and name.startswith("is_"):
            network = classifier.name
        kind = name.removesuffix(f"_{network}")
        full, best = f"{kind}_{network}" if network else kind, HIGHER if kind == "is" else better(kind)
        known = {which: each.values[name] for which, each in baselines.items() if name in each.values}
        figures.append(Figure(full, value, best, known, network, seed, NOTES.get(kind, "")))
    parts = {"real": sets.real, "heldout": sets.heldout, "synthetic": sets.synthetic}
    return Section(
        "fidelity",
        "Fidelity and diversity",
        _describe(figures, extractor.name),
        figures,
        _plots(synthetic, baselines[REAL_REAL]),
        warnings=_warnings(sets, figures, extractor.dimension),
        facts={
            "extractor": extractor.name,
            "features": extractor.dimension,
            "neighbours": measures.k,
            "images": {name: len(part) for name, part in parts.items()},
            "patients": {name: len(set(parts[name].patients)) for name in ("real", "heldout")},
        },
    )


def _plots(synthetic: Measured, real: Measured) -> list[Plot]:
    """Plots the lines of the extrapolation."""
    lines = [
        Line(name, [0.0, *(1 / each for each in line.numbers)], [line.value.mean, *line.means])
        for name, line in (("synthetic", synthetic.line), ("real against real", real.line))
        if line is not None
    ]
    caption = (
        "Both sets cut by patient into 1 to 4 parts, the parts' mean FID; the fitted line at 0 is that "
        "of infinitely many patients. The difference is the bias of few patients."
    )
    title = "FID and the number of images"
    return [Plot(title, "1 / number of images", "FID", lines, caption)] if lines else []


def _warnings(sets: Sets, figures: Sequence[Figure], features: int) -> list[str]:
    """Warns of few images, few patients and unequal numbers."""
    fid = next(figure for figure in figures if figure.name.startswith("fid_"))
    infinite = next((figure for figure in figures if figure.name.startswith("fid_infinity")), None)
    synthetic, heldout = len(sets.synthetic), len(sets.heldout)
    messages = []
    if min(synthetic, heldout) < features:
        messages.append(
            f"{synthetic} synthetic and {heldout} held-out images for {features} features: FID is biased "
            f"upward (real against real: {fid.baselines[REAL_REAL].text()}) and its extrapolation a guess; "
            "trust KID, which has no such bias"
        )
    if infinite is not None and infinite.value.mean < (1 - BIASED) * fid.value.mean:
        messages.append(
            f"FID is {fid.value.text()} for {synthetic} images but {infinite.value.text()} extrapolated to "
            "infinitely many patients: compare it only with values of as many images"
        )
    taken = fid.baselines[REAL_REAL].n
    if taken < synthetic:
        messages.append(
            f"real against real rests on {taken} images, the synthetic value on {synthetic}: FID, recall and "
            "coverage of fewer images are worse, so the comparison favours the synthetic ones"
        )
    few = few_patients(len(set(sets.heldout.patients)))
    return messages if few is None else [*messages, f"held-out images of {few}"]


def _describe(figures: Sequence[Figure], extractor: str) -> str:
    """Three sentences: the distance, whether it differs from that of real images, and what is lacking."""
    kinds = {figure.name.removesuffix(f"_{extractor}"): figure for figure in figures}
    lack = _describe_lack(kinds["precision"], kinds["recall"])
    return f"{_describe_distance(kinds['fid'], extractor)} {_describe_kid(kinds['kid'])} {lack}"


def _describe_distance(fid: Figure, extractor: str) -> str:
    real, mean = fid.baselines[REAL_REAL].mean, fid.baselines[MEAN_IMAGE].mean
    values = f"{fid.value.mean:.3g}, {real:.3g} for real against real and {mean:.3g} for the mean image"
    text = f"FID ({extractor}) is {values}"
    if not mean > real:
        return f"{text}: this extractor does not tell real images from their mean, so FID says nothing here."
    share = (fid.value.mean - real) / (mean - real)
    if share <= 0:
        return f"{text}: the synthetic images are as near to held-out ones as real images are."
    if share >= 1:
        return f"{text}: the synthetic images are no nearer to real ones than the mean image."
    return f"{text}: {100 * share:.0f} % of the way from real images to the mean image."


def _describe_kid(kid: Figure) -> str:
    real = kid.baselines[REAL_REAL]
    figures = f"{kid.value.text()} against {real.text()}"
    if not (kid.value.bounded and real.bounded):
        return f"Whether KID tells them from real images cannot be said with so few patients ({figures})."
    if kid.value.low > real.high:
        return f"KID tells them from real images ({figures})."
    return f"KID does not tell {kid.value.n} of them from real images ({figures})."


def _describe_lack(precision: Figure, recall: Figure) -> str:
    pairs = {
        name: (figure.value, figure.baselines[REAL_REAL])
        for name, figure in (("precision", precision), ("recall", recall))
    }
    words = [f"{name} {value.text()}, of real images {real.text()}" for name, (value, real) in pairs.items()]
    if not all(value.bounded and real.bounded for value, real in pairs.values()):
        question = "whether they look like real images and are as diverse"
        return f"Too few patients to say {question} ({'; '.join(words)})."
    true, diverse = (value.high >= real.low for value, real in pairs.values())
    if true and diverse:
        return f"They look like real images and are as diverse, as far as can be told ({'; '.join(words)})."
    if true:
        return f"They look like real images but miss part of their variety ({words[1]}), as in mode collapse."
    if diverse:
        return f"They reach the variety of real images, but many do not look like them ({words[0]})."
    return f"They do not look like real images, nor reach their variety ({'; '.join(words)})."

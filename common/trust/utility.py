"""Utility: does a network that is trained with synthetic images do better on unseen real patients?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import torch
from monai.networks.nets import Classifier
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.downstream import TrainingComparison, balanced_accuracy, describe_differences, holm
from common.metrics.segmentation import mean_dice
from common.rng import make_rng
from common.training.fit_supervised import Budget, fit, predictions, seeded
from common.trust.faithfulness import TrainingSlices, overlaps, segment, structure_names, train_segmenter
from common.trust.image_sets import ImageSet, Sets, labels_of
from common.trust.report import HIGHER, Figure, Line, Plot, Section

MAJORITY = 0.5
"""Share of the training labels with a structure at a pixel from which on the mean label has it there."""


class Task(Protocol):
    """A downstream task.

    Attributes:
        name: of the task, for people.
        metric: its name; higher is better.
        network: the trained network's name.
        nothing: the constant prediction behind the floor, in words.
    """

    name: str
    metric: str
    network: str
    nothing: str

    def outcome(self, training: Sequence[ImageSet], test: ImageSet, budget: Budget, seed: int) -> NDArray:
        """Trains on equal shares of the sets; returns for each test image what `score` takes, (N, ...)."""

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """Computes the outcome of a constant predictor."""

    def score(self, outcome: NDArray, counts: NDArray) -> float:
        """Computes the metric over test images, each weighted by its count (N,)."""


@dataclass(frozen=True)
class Segmentation:
    """Segmentation by a U-Net; outcomes are (N, 3, K), see `common.trust.faithfulness.overlaps`.

    Attributes:
        structures: what is segmented.
    """

    structures: Sequence[str]
    device: torch.device | str = "cpu"
    name = "segmentation"
    metric = "dice"
    network = "unet"
    nothing = "the structure that at least half of the training labels have at a pixel"

    def outcome(self, training: Sequence[ImageSet], test: ImageSet, budget: Budget, seed: int) -> NDArray:
        """Trains a segmenter; see `Task`."""
        images = torch.cat([part.images for part in training])
        labels = torch.cat([labels_of(part) for part in training])
        parts = [len(part) for part in training]
        network = train_segmenter(images, labels, len(self.structures), budget, seed, self.device, parts)
        return self._overlaps(segment(network, test.images, self.device), test)

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """Computes the outcome of predicting the mean label."""
        mean = torch.zeros(1, *labels_of(training).shape[1:])
        for index in range(1, len(self.structures) + 1):
            share = (labels_of(training).round() == index).float().mean(0, keepdim=True)
            mean[share >= MAJORITY] = index
        return self._overlaps(mean.expand(len(test), -1, -1, -1), test)

    def score(self, outcome: NDArray, counts: NDArray) -> float:
        """Computes the mean Dice over structures, all images together."""
        return mean_dice(torch.from_numpy(np.tensordot(counts, outcome, axes=1)))

    def _overlaps(self, predicted: Tensor, test: ImageSet) -> NDArray:
        return overlaps(predicted, labels_of(test), len(self.structures)).numpy()


@dataclass(frozen=True)
class Classification:
    """Classification by a small CNN; outcomes are (N, 2): the predicted and the true class.

    Attributes:
        classes: names of the folders.
    """

    classes: Sequence[str]
    device: torch.device | str = "cpu"
    name = "classification"
    metric = "balanced_accuracy"
    network = "cnn"
    nothing = "always the class that most training images have"

    def outcome(self, training: Sequence[ImageSet], test: ImageSet, budget: Budget, seed: int) -> NDArray:
        """Trains a classifier; see `Task`."""
        images = torch.cat([part.images for part in training])
        numbers = np.concatenate([self._numbers(part) for part in training])
        shape, channels = tuple(images.shape[1:]), (8, 16, 32)

        def make() -> nn.Module:
            return Classifier(shape, len(self.classes), channels, (2, 2, 2), norm="batch")

        network = seeded(make, seed, "classifier")
        items = TrainingSlices(images, {"class": torch.from_numpy(numbers)}, seed)
        parts = [len(part) for part in training]
        fit(network, items, {"ce": nn.CrossEntropyLoss()}, "class", budget, seed, self.device, parts)
        predicted = predictions(network, test.images, self.device).argmax(1).numpy()
        return np.stack([predicted, self._numbers(test)], axis=1)

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """Computes the outcome of predicting the most frequent class."""
        commonest = np.bincount(self._numbers(training)).argmax()
        return np.stack([np.full(len(test), commonest), self._numbers(test)], axis=1)

    def score(self, outcome: NDArray, counts: NDArray) -> float:
        """Computes the mean over classes of the share found."""
        return balanced_accuracy(outcome[:, 0], outcome[:, 1], len(self.classes), counts)

    def _numbers(self, images: ImageSet) -> NDArray[np.int64]:
        return np.array([list(self.classes).index(name) for name in folders_of(images)], np.int64)


def find_task(sets: Sets, device: torch.device | str = "cpu") -> Task | None:
    """Finds the task that the sets allow: labels, else class folders of equal names; None without either."""
    every = (sets.real, sets.heldout, sets.synthetic)
    if all(each.labels is not None for each in every):
        return Segmentation(structure_names(*every), device)
    classes = sorted(set(folders_of(sets.real)))
    if len(classes) > 1 and set(folders_of(sets.heldout)) == set(folders_of(sets.synthetic)) == set(classes):
        return Classification(classes, device)
    return None


def folders_of(images: ImageSet) -> list[str]:
    """Lists the innermost folder of each image's name, its class if there are class folders."""
    return [PurePosixPath(name).parent.name for name in images.names]


TITLE = "Utility: does a network gain from the synthetic images?"
SHARES = (0.1, 0.25, 1.0)
REAL, SYNTHETIC, BOTH = "real", "synthetic", "real_and_synthetic"
FLOOR = "no_network"
FEWEST_OWN = 8
"""Synthetic images that must be left if those made of held-out labels are left out."""
LEAST_LEARNED = 0.1
"""Margin by which training with real images must beat a constant predictor."""
WHOLE_GENERATOR = (
    "The generator learned from all real patients, so gains with a part of them hold for a user of this "
    "generator, not for one trained on that part"
)
NOTHING = (
    "There is nothing to train for: neither labels nor class folders are common to the real, held-out and "
    "synthetic images"
)


def utility(
    sets: Sets,
    seed: int = 0,
    seeds: int = 3,
    budget: Budget | None = None,
    shares: Sequence[float] = SHARES,
    resamples: int = 1000,
    device: torch.device | str = "cpu",
) -> Section:
    """Trains on real, on synthetic and on both, several times each; all are tested on the held-out images.

    All trainings have the same budget, and those of a seed the same first weights. Batches of both kinds hold
    as many real images as synthetic ones. Intervals are over test patients and seeds, those of differences
    paired; Holm's correction (1979) decides for all differences together which are clear.

    The generator has learned from all real patients, also if a training takes a part of them: gains with a
    part hold for a user who has the generator and few images, not for a generator trained on few patients.
    The statement and the figures' notes say so.

    Args:
        seed: of the first training and of the bootstrap.
        seeds: trainings of each kind.
        budget: of each training.
        shares: of the real patients in the learning curve; 1 is always among them.

    Example:
        >>> images = torch.zeros(8, 1, 16, 16)
        >>> images[::2] = 0.5
        >>> names = [f"{kind}/{k}.png" for k in range(4) for kind in ("bright", "dark")]
        >>> parts = [ImageSet(images, [f"{side}{k}" for k in range(8)], names) for side in "rhs"]
        >>> section = utility(Sets(*parts), seeds=1, budget=Budget(1, 4), shares=(), resamples=5)
        >>> section.facts["task"], section.figures[0].name
        ('classification', 'balanced_accuracy_trained_on_real')
    """
    task = find_task(sets, device)
    if task is None:
        return Section("utility", TITLE, f"{NOTHING}.")
    budget = budget or Budget()
    synthetic, leak = leave_out_heldout(sets.synthetic, sets.heldout)
    parts = real_parts(sets.real, shares, seed)
    regimes: dict[str, list[ImageSet]] = {SYNTHETIC: [synthetic]}
    for percent, part in parts.items():
        regimes |= {_at(REAL, percent): [part], _at(BOTH, percent): [part, synthetic]}
    outcomes = train_all(task, regimes, sets.heldout, budget, range(seed, seed + seeds))
    result = _compare(task, outcomes, sets, [*parts], resamples, seed)
    return Section(
        name="utility",
        title=TITLE,
        statement=_describe(result, seeds),
        figures=_figures(result, seed),
        plots=[_plot(result)],
        warnings=_warnings(leak, sets, result),
        facts={
            "task": task.name,
            "network": task.network,
            "budget": asdict(budget),
            "seeds": list(range(seed, seed + seeds)),
            "floor": task.nothing,
            "training_images": {name: sum(map(len, sources)) for name, sources in regimes.items()},
            "real_patients": {f"{percent} %": len(set(part.patients)) for percent, part in parts.items()},
            "test_images": len(sets.heldout),
            "test_patients": len(set(sets.heldout.patients)),
            "by_seed": {regime: result.comparison.by_seed(regime, task.score) for regime in outcomes},
        },
    )


@dataclass(frozen=True)
class UtilityResult:
    """The results of all trainings.

    Attributes:
        task: what was trained for.
        comparison: outcomes of all trainings, with their resamples.
        percents: of the real patients, parts of the learning curve; 100 comes last.
        differences: of synthetic and both from real images alone.
        gains: by percent, of adding synthetic images to that part of the real patients.
        floor: the score of a constant predictor.
    """

    task: Task
    comparison: TrainingComparison
    percents: Sequence[int]
    differences: Mapping[str, Value]
    gains: Mapping[int, Value]
    floor: Value

    def value(self, regime: str) -> Value:
        """Computes the metric of one kind of training."""
        return self.comparison.value(regime, self.task.score)

    @property
    def learns(self) -> bool:
        """Whether training with real images clearly beats a constant predictor."""
        return self.value(REAL).mean - self.floor.mean >= LEAST_LEARNED


def _compare(
    task: Task,
    outcomes: Mapping[str, Sequence[NDArray]],
    sets: Sets,
    percents: Sequence[int],
    count: int,
    seed: int,
) -> UtilityResult:
    test = sets.heldout
    drawn = resample_counts(test.patients, len(test), count, make_rng(seed, "utility", task.name))
    trainings = len(next(iter(outcomes.values())))
    seeds = resample_counts(None, trainings, count, make_rng(seed, "utility", task.name, "seeds"))
    comparison = TrainingComparison(outcomes, Resamples(drawn, test.patients), seeds)
    floor = TrainingComparison({FLOOR: [task.floor(sets.real, test)]}, comparison.resamples)
    return UtilityResult(
        task,
        comparison,
        percents,
        {regime: comparison.difference(regime, REAL, task.score) for regime in (SYNTHETIC, BOTH)},
        {
            percent: comparison.difference(_at(BOTH, percent), _at(REAL, percent), task.score)
            for percent in percents
            if percent < 100
        },
        floor.value(FLOOR, task.score),
    )


def leave_out_heldout(synthetic: ImageSet, heldout: ImageSet) -> tuple[ImageSet, str]:
    """Leaves out synthetic images that were made of held-out patients' labels; returns a warning about them.

    A network that learns from the test patients' own labels knows something of the test. If hardly any other
    images are left, all are taken.
    """
    if synthetic.labels is None or heldout.labels is None:
        return synthetic, ""
    known = {label.numpy().tobytes() for label in heldout.labels if label.any()}
    kept = [k for k, label in enumerate(synthetic.labels) if label.numpy().tobytes() not in known]
    leaking = len(synthetic) - len(kept)
    if not leaking:
        return synthetic, ""
    message = (
        f"{leaking} of {len(synthetic)} synthetic images have the label of a held-out image as condition"
    )
    if len(kept) < min(FEWEST_OWN, len(synthetic)):
        return synthetic, f"{message}: trainings with them know something of the test."
    return synthetic.select(kept), f"{message}; they are left out here."


def real_parts(real: ImageSet, shares: Sequence[float], seed: int) -> dict[int, ImageSet]:
    """Makes nested parts of the real images, of whole patients, by percent of the patients; 100 comes last.

    Shares that give the same number of patients are one part.
    """
    patients = sorted(set(real.patients))
    order = [patients[k] for k in make_rng(seed, "utility", "patients").permutation(len(patients))]
    numbers = sorted({max(1, round(share * len(order))) for share in shares} | {len(order)})
    parts = {}
    for number in numbers:
        taken = set(order[:number])
        rows = [k for k, patient in enumerate(real.patients) if patient in taken]
        parts[round(100 * number / len(order))] = real.select(rows)
    return parts


def train_all(
    task: Task,
    regimes: Mapping[str, Sequence[ImageSet]],
    test: ImageSet,
    budget: Budget,
    seeds: Sequence[int],
) -> dict[str, list[NDArray]]:
    """Trains each regime once per seed; returns the outcomes."""
    outcomes: dict[str, list[NDArray]] = {name: [] for name in regimes}
    work = [(name, seed) for name in regimes for seed in seeds]
    for name, seed in tqdm(work, desc="utility", unit="training", leave=False, disable=None):
        outcomes[name].append(task.outcome(regimes[name], test, budget, seed))
    return outcomes


def _describe(result: UtilityResult, seeds: int) -> str:
    """Computes the differences in words; a doubt first if real images alone teach the network nothing."""
    task, gains = result.task, result.gains
    adjusted = holm({**result.differences, **{str(percent): gain for percent, gain in gains.items()}})
    named = {name.replace("_", " "): value for name, value in result.differences.items()}
    own = {name.replace("_", " "): adjusted[name] for name in result.differences}
    subject = f"{task.name.capitalize()} of held-out real patients"
    words = [describe_differences(subject, task.metric, named, own)]
    if gains:
        names = {percent: f"with {percent} % of the real patients" for percent in gains}
        few = {names[percent]: gain for percent, gain in gains.items()}
        own = {names[percent]: adjusted[str(percent)] for percent in gains}
        to = "as many real ones alone"
        words += [describe_differences("Adding synthetic images", task.metric, few, own, to), WHOLE_GENERATOR]
    doubt = "" if result.learns else "Cannot be judged: real images alone teach the network hardly anything. "
    return f"{doubt}{'. '.join(words)}. Trainings of each kind: {seeds}."


def _figures(result: UtilityResult, seed: int) -> list[Figure]:
    task, floor = result.task, result.floor
    values = {regime: result.value(regime) for regime in (REAL, SYNTHETIC, BOTH)}
    figures = []
    for regime, value in values.items():
        baselines = {FLOOR: floor} if regime == REAL else {REAL: values[REAL], FLOOR: floor}
        name = f"{task.metric}_trained_on_{regime}"
        figures.append(Figure(name, value, HIGHER, baselines, task.network, seed))
    for regime, value in result.differences.items():
        note = "difference to real images alone, same seeds and test images"
        figures.append(Figure(f"{task.metric}_gain_{regime}", value, HIGHER, {}, task.network, seed, note))
    for percent, value in result.gains.items():
        name = f"{task.metric}_gain_at_{percent}_percent"
        note = "real: what these patients alone reach; the generator learned from all patients"
        alone = {REAL: result.value(_at(REAL, percent))}
        figures.append(Figure(name, value, HIGHER, alone, task.network, seed, note))
    return figures


def _plot(result: UtilityResult) -> Plot:
    percents = list(result.percents)
    curves = {
        "real": [result.value(_at(REAL, percent)) for percent in percents],
        "real + synthetic": [result.value(_at(BOTH, percent)) for percent in percents],
        "synthetic alone": [result.value(SYNTHETIC)] * len(percents),
    }
    lines = [
        Line(
            name, percents, *([getattr(value, part) for value in values] for part in ("mean", "low", "high"))
        )
        for name, values in curves.items()
    ]
    return Plot(
        f"{result.task.name.capitalize()} by the share of real patients",
        "real patients, %",
        result.task.metric.replace("_", " "),
        lines,
        "On held-out real patients; bands are 95 % intervals over patients and seeds.",
    )


def _warnings(leak: str, sets: Sets, result: UtilityResult) -> list[str]:
    messages = [leak] if leak else []
    if not result.learns:
        messages.append(
            "Trained with real images the network hardly beats a constant predictor: train longer."
        )
    tested = len(set(sets.heldout.patients))
    if tested < 5:
        messages.append(f"{tested} held-out patients: intervals over so few say little.")
    if len(result.percents) == 1:
        messages.append("Too few real patients for a curve over their share.")
    return messages


def _at(regime: str, percent: int) -> str:
    """Returns the name of a regime with a part of the real patients; all of them are the regime itself."""
    return regime if percent == 100 else f"{regime}_{percent}_percent"

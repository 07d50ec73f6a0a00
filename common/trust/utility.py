"""Are synthetic images of use? A network trained with them is tested on real patients it never saw."""

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
from common.metrics.classification import balanced_accuracy
from common.metrics.paired_comparison import TrainingComparison, describe_differences, holm
from common.rng import make_rng
from common.training.fit_supervised import Budget, fit, predictions, seeded
from common.trust.faithfulness import mean_dice, overlaps, segmented, structure_names, train_segmenter
from common.trust.image_sets import ImageSet, Sets, TrainingSlices
from common.trust.results import HIGHER, Figure, Line, Plot, Section

EVERY_SLICE = 0.5  # a pixel of the mean label: the structure that at least half of the images have there


class Task(Protocol):
    """Something to train for.

    Attributes:
        name: of the task, for people.
        metric: what is judged; higher is better.
        network: what is trained.
        nothing: what the floor answers.
    """

    name: str
    metric: str
    network: str
    nothing: str

    def outcome(self, training: Sequence[ImageSet], test: ImageSet, budget: Budget, seed: int) -> NDArray:
        """Trains on equal shares of the sets, and says of each test image what `judge` takes, (N, ...)."""

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """The same of an answer that looks at no image."""

    def judge(self, outcome: NDArray, counts: NDArray) -> float:
        """The metric of test images that count so often (N,)."""


@dataclass(frozen=True)
class Segmentation:
    """Outcomes are (N, K, 3), see `common.trust.faithfulness.overlaps`.

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
        """A segmenter's; see `Task`."""
        images = torch.cat([part.images for part in training])
        labels = torch.cat([labels_of(part) for part in training])
        parts = [len(part) for part in training]
        network = train_segmenter(images, labels, len(self.structures), budget, seed, self.device, parts)
        return self._overlaps(segmented(network, test.images, self.device), test)

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """Of the mean label."""
        mean = torch.zeros(1, *labels_of(training).shape[1:])
        for index in range(1, len(self.structures) + 1):
            share = (labels_of(training).round() == index).float().mean(0, keepdim=True)
            mean[share >= EVERY_SLICE] = index
        return self._overlaps(mean.expand(len(test), -1, -1, -1), test)

    def judge(self, outcome: NDArray, counts: NDArray) -> float:
        """The mean Dice over structures, all images together."""
        return mean_dice(torch.from_numpy(np.tensordot(counts, outcome, axes=1)))

    def _overlaps(self, found: Tensor, test: ImageSet) -> NDArray:
        return overlaps(found, labels_of(test), len(self.structures)).numpy()


@dataclass(frozen=True)
class Classification:
    """Outcomes are (N, 2): the class found, and the true one.

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
        """A classifier's; see `Task`."""
        images = torch.cat([part.images for part in training])
        numbers = np.concatenate([self._numbers(part) for part in training])
        shape = tuple(images.shape[1:])
        network = seeded(lambda: make_classifier(shape, len(self.classes)), seed, "classifier")
        items = TrainingSlices(images, {"class": torch.from_numpy(numbers)}, seed)
        parts = [len(part) for part in training]
        fit(network, items, {"ce": nn.CrossEntropyLoss()}, "class", budget, seed, self.device, parts)
        found = predictions(network, test.images, self.device).argmax(1).numpy()
        return np.stack([found, self._numbers(test)], axis=1)

    def floor(self, training: ImageSet, test: ImageSet) -> NDArray:
        """Of the most frequent class."""
        commonest = np.bincount(self._numbers(training)).argmax()
        return np.stack([np.full(len(test), commonest), self._numbers(test)], axis=1)

    def judge(self, outcome: NDArray, counts: NDArray) -> float:
        """The mean over classes of the share found."""
        return balanced_accuracy(outcome[:, 0], outcome[:, 1], len(self.classes), counts)

    def _numbers(self, images: ImageSet) -> NDArray[np.int64]:
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[name] for name in folders_of(images)], np.int64)


def make_classifier(shape: Sequence[int], classes: int, width: int = 8) -> nn.Module:
    """(B, 1, S, S) in [-1, 1] -> logits (B, classes)."""
    channels = (width, 2 * width, 4 * width)
    return Classifier(shape, classes, channels, (2, 2, 2), norm="batch")


def find_task(sets: Sets, device: torch.device | str = "cpu") -> Task | None:
    """What there is to train for: labels, else class folders with equal names; None for nothing."""
    every = (sets.real, sets.heldout, sets.synthetic)
    if all(each.labels is not None for each in every):
        return Segmentation(structure_names(*every), device)
    classes = sorted(set(folders_of(sets.real)))
    if len(classes) > 1 and set(folders_of(sets.heldout)) == set(folders_of(sets.synthetic)) == set(classes):
        return Classification(classes, device)
    return None


def folders_of(images: ImageSet) -> list[str]:
    """The innermost folder of each image's name: its class where there are class folders."""
    return [PurePosixPath(name).parent.name for name in images.names]


def labels_of(images: ImageSet) -> Tensor:
    """The labels of a set that has some."""
    if images.labels is None:
        raise ValueError(f"{images.folder}: no labels")
    return images.labels


TITLE = "Utility: does a network gain from the synthetic images?"
SHARES = (0.1, 0.25, 1.0)
REAL, SYNTHETIC, BOTH = "real", "synthetic", "real_and_synthetic"
FLOOR = "no_network"
FEWEST_OWN = 8
LEAST_LEARNED = 0.1  # by which training with real images must beat an answer that looks at no image
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
    paired; whether a difference is clear is decided for all of them together (Holm 1979).

    The generator has learned from all real patients, also where a training takes a part of them: gains with a
    part say what one gains who has the generator and few images of one's own, not what a generator trained on
    few patients would give. The statement and the figures' notes say so.

    Args:
        seed: of the first training and of the bootstrap.
        seeds: trainings of each kind.
        budget: of each training.
        shares: of the real patients that the curve is drawn over; 1 is always among them.
    """
    task = find_task(sets, device)
    if task is None:
        return Section("utility", TITLE, f"{NOTHING}.")
    budget = budget or Budget()
    synthetic, leak = unseen(sets.synthetic, sets.heldout)
    parts = real_parts(sets.real, shares, seed)
    regimes: dict[str, list[ImageSet]] = {SYNTHETIC: [synthetic]}
    for percent, part in parts.items():
        regimes |= {_at(REAL, percent): [part], _at(BOTH, percent): [part, synthetic]}
    outcomes = trained(task, regimes, sets.heldout, budget, range(seed, seed + seeds))
    judge = _comparison(task, outcomes, sets.heldout, resamples, seed)
    curve = [percent for percent in parts if percent < 100]
    differences = {regime: judge.difference(regime, REAL, task.judge) for regime in (SYNTHETIC, BOTH)}
    gains = {
        percent: judge.difference(_at(BOTH, percent), _at(REAL, percent), task.judge) for percent in curve
    }
    floor = _floor(task, sets, judge.resamples)
    learns = judge.value(REAL, task.judge).mean - floor.mean >= LEAST_LEARNED
    return Section(
        name="utility",
        title=TITLE,
        statement=statement(task, differences, gains, seeds, learns),
        figures=_figures(task, judge, differences, gains, floor, seed),
        plots=[_plot(task, judge, list(parts))],
        warnings=_warnings(leak, sets, parts, learns),
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
            "by_seed": {regime: judge.by_seed(regime, task.judge) for regime in outcomes},
        },
    )


def unseen(synthetic: ImageSet, heldout: ImageSet) -> tuple[ImageSet, str]:
    """The synthetic images that were not made of held-out patients' labels, and what is to be said of others.

    A network that learns from the test patients' own labels knows something of the test. Where hardly any
    other images are left, all are taken.
    """
    if synthetic.labels is None or heldout.labels is None:
        return synthetic, ""
    known = {label.numpy().tobytes() for label in heldout.labels if label.any()}
    places = [k for k, label in enumerate(synthetic.labels) if label.numpy().tobytes() not in known]
    leaking = len(synthetic) - len(places)
    if not leaking:
        return synthetic, ""
    said = f"{leaking} of {len(synthetic)} synthetic images have the label of a held-out image as condition"
    if len(places) < min(FEWEST_OWN, len(synthetic)):
        return synthetic, f"{said}: trainings with them know something of the test."
    return synthetic.chosen(places), f"{said}; they are left out here."


def real_parts(real: ImageSet, shares: Sequence[float], seed: int) -> dict[int, ImageSet]:
    """Nested parts of the real images, whole patients, by per cent of the patients; 100 comes last.

    Shares that come to the same number of patients are one.
    """
    patients = sorted(set(real.patients))
    order = [patients[k] for k in make_rng(seed, "utility", "patients").permutation(len(patients))]
    numbers = sorted({max(1, round(share * len(order))) for share in shares} | {len(order)})
    parts = {}
    for number in numbers:
        taken = set(order[:number])
        places = [k for k, patient in enumerate(real.patients) if patient in taken]
        parts[round(100 * number / len(order))] = real.chosen(places)
    return parts


def trained(
    task: Task,
    regimes: Mapping[str, Sequence[ImageSet]],
    test: ImageSet,
    budget: Budget,
    seeds: Sequence[int],
) -> dict[str, list[NDArray]]:
    """The outcomes of each regime, one a seed."""
    outcomes: dict[str, list[NDArray]] = {name: [] for name in regimes}
    work = [(name, seed) for name in regimes for seed in seeds]
    for name, seed in tqdm(work, desc="utility", unit="training", leave=False, disable=None):
        outcomes[name].append(task.outcome(regimes[name], test, budget, seed))
    return outcomes


def statement(
    task: Task, differences: Mapping[str, Value], gains: Mapping[int, Value], seeds: int, learns: bool = True
) -> str:
    """What the figures say, whichever way they point; little where real images alone teach nothing."""
    adjusted = holm({**differences, **{str(percent): gain for percent, gain in gains.items()}})
    named = {name.replace("_", " "): value for name, value in differences.items()}
    own = {name.replace("_", " "): adjusted[name] for name in differences}
    words = [
        describe_differences(f"{task.name.capitalize()} of held-out real patients", task.metric, named, own)
    ]
    if gains:
        few = {f"with {percent} % of the real patients": gain for percent, gain in gains.items()}
        own = {f"with {percent} % of the real patients": adjusted[str(percent)] for percent in gains}
        said = describe_differences(
            "adding synthetic images", task.metric, few, own, "as many real ones alone"
        )
        words += [said[0].upper() + said[1:], WHOLE_GENERATOR]
    doubt = "" if learns else "Cannot be judged: real images alone teach the network hardly anything. "
    return f"{doubt}{'. '.join(words)}. Trainings of each kind: {seeds}."


def _comparison(
    task: Task, outcomes: Mapping[str, Sequence[NDArray]], test: ImageSet, count: int, seed: int
) -> TrainingComparison:
    drawn = resample_counts(test.patients, len(test), count, make_rng(seed, "utility", task.name))
    number = len(next(iter(outcomes.values())))
    seeds = resample_counts(None, number, count, make_rng(seed, "utility", task.name, "seeds"))
    return TrainingComparison(outcomes, Resamples(drawn, test.patients), seeds)


def _floor(task: Task, sets: Sets, resamples: Resamples) -> Value:
    """Of an answer that looks at no image."""
    outcome = task.floor(sets.real, sets.heldout)
    return TrainingComparison({FLOOR: [outcome]}, resamples).value(FLOOR, task.judge)


def _figures(
    task: Task,
    judge: TrainingComparison,
    differences: Mapping[str, Value],
    gains: Mapping[int, Value],
    floor: Value,
    seed: int,
) -> list[Figure]:
    values = {regime: judge.value(regime, task.judge) for regime in (REAL, SYNTHETIC, BOTH)}
    made = [
        Figure(
            f"{task.metric}_trained_on_{regime}",
            value,
            HIGHER,
            {FLOOR: floor} if regime == REAL else {REAL: values[REAL], FLOOR: floor},
            task.network,
            seed,
        )
        for regime, value in values.items()
    ]
    for regime, value in differences.items():
        note = "difference to real images alone, same seeds and test images"
        made.append(Figure(f"{task.metric}_gain_{regime}", value, HIGHER, {}, task.network, seed, note))
    for percent, value in gains.items():
        alone = judge.value(_at(REAL, percent), task.judge)
        name = f"{task.metric}_gain_at_{percent}_percent"
        note = "real: what these patients alone reach; the generator learned from all patients"
        made.append(Figure(name, value, HIGHER, {REAL: alone}, task.network, seed, note))
    return made


def _plot(task: Task, judge: TrainingComparison, percents: Sequence[int]) -> Plot:
    lines = []
    for regime, name in ((REAL, "real"), (BOTH, "real + synthetic")):
        lines.append(_line(name, percents, [judge.value(_at(regime, p), task.judge) for p in percents]))
    alone = judge.value(SYNTHETIC, task.judge)
    lines.append(_line("synthetic alone", percents, [alone] * len(percents)))
    return Plot(
        f"{task.name.capitalize()} by the share of real patients",
        "real patients, %",
        task.metric.replace("_", " "),
        lines,
        "On held-out real patients; bands are 95 % intervals over patients and seeds.",
    )


def _line(name: str, x: Sequence[float], values: Sequence[Value]) -> Line:
    return Line(
        name,
        list(x),
        [value.mean for value in values],
        [value.low for value in values],
        [value.high for value in values],
    )


def _warnings(leak: str, sets: Sets, parts: Mapping[int, ImageSet], learns: bool) -> list[str]:
    warnings = [leak] if leak else []
    if not learns:
        warnings.append(
            "Trained with real images the network hardly beats an answer without one: train longer."
        )
    tested = len(set(sets.heldout.patients))
    if tested < 5:
        warnings.append(f"{tested} held-out patients: intervals over so few say little.")
    if len(parts) == 1:
        warnings.append("Too few real patients for a curve over their share.")
    return warnings


def _at(regime: str, percent: int) -> str:
    """The name of a regime with a part of the real patients; all of them are the regime itself."""
    return regime if percent == 100 else f"{regime}_{percent}_percent"

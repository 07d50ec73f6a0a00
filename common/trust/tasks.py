"""What a downstream network is trained for, to see what synthetic images are worth: segmenting or sorting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import torch
from monai.networks.nets import Classifier
from numpy.typing import NDArray
from torch import Tensor, nn

from common.metrics.classification import balanced_accuracy
from common.training.in_memory import Budget, fit, predictions, seeded
from common.trust.items import TrainingSlices
from common.trust.segmenting import mean_dice, overlaps, segmented, structure_names, train_segmenter
from common.trust.sets import ImageSet, Sets

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
    """Outcomes are (N, K, 3), see `common.trust.segmenting.overlaps`.

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

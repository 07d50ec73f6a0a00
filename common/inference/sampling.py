"""Noise for generators: sample k of a seed always has the same noise, however a job is split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.data.datasets import ImageDataset
from common.errors import UserError, check_int
from common.networks.state import evaluating
from common.rng import make_rng

COLUMNS = 8
"""Samples in a row of a grid."""


def latents(seed: int, samples: Iterable[int], size: int) -> Tensor:
    """Draws the latents of samples k of a seed: (B, size) float32 from N(0, I), each from (seed, k) only.

    Args:
        seed: of all samples.
        samples: the numbers k.
        size: number of values of a latent.

    Example:
        >>> torch.equal(latents(0, [7, 2], 100)[1], latents(0, [2], 100)[0])
        True
    """
    drawn = [make_rng(seed, "latent", int(k)).standard_normal(size, dtype=np.float32) for k in samples]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, size)


def example_noise(dataset: ImageDataset, size: int, rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Returns ``latent`` for a grid of ``rows`` and a row of real ``image``, the same at every call."""
    indices = np.linspace(0, len(dataset) - 1, min(COLUMNS, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(rows * COLUMNS), size),
        "image": torch.from_numpy(dataset.images[indices]),
    }


def class_noise(dataset: ImageDataset, size: int, seed: int = 0) -> dict[str, Tensor]:
    """Returns ``latent``, ``class`` and ``image`` for a grid: a row per class, the same noise in each column.

    Real images repeat if a class has fewer than a row holds; a class without images is left out.
    """
    present = [index for index in range(len(dataset.class_names)) if (dataset.classes == index).any()]
    indices = [np.resize(np.flatnonzero(dataset.classes == index), COLUMNS) for index in present]
    return {
        "latent": latents(seed, range(COLUMNS), size).repeat(len(present), 1),
        "class": torch.tensor(present).repeat_interleave(COLUMNS),
        "image": torch.from_numpy(dataset.images[np.concatenate(indices)]),
    }


def noise_beside(dataset: ImageDataset, size: int, count: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """Returns ``latent`` for ``count`` samples, and ``image`` and ``class`` of as many real images.

    The real images are spread evenly over the data set, so they have its mixture of classes; if there are
    fewer than ``count``, all are taken.
    """
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(len(indices)), size),
        "class": torch.from_numpy(dataset.classes[indices]),
        "image": torch.from_numpy(dataset.images[indices]),
    }


BLOCK = 32
"""Samples that go through the network together, always starting at a multiple of `BLOCK`.

The last bits of an image depend on the batch it is computed in. In fixed blocks a sample's file has the same
bytes wherever a job begins and ends.
"""
ALL = "all"


class SampleNumbers(Dataset[dict[str, int]]):
    """Data set of the samples ``first_sample`` to ``first_sample + num_samples - 1``, in whole blocks.

    Items are ``{"sample": k}``, with ``class`` for a conditional model: the chosen classes alternate by k, so
    a sample's class is the same however a job is split. A loader must take the items in order, `BLOCK` at a
    time.

    Args:
        num_samples: number of samples.
        first_sample: number of the first sample.
        classes: names of the classes to draw, as a list or separated by commas, or ``all``.
        class_names: the model's classes; empty for an unconditional model.

    Attributes:
        requested: the numbers asked for, without those that only fill a block.
    Raises:
        UserError: no samples, a negative number, an unknown class, or a class for an unconditional model.

    Example:
        >>> names = ["none", "mild", "severe"]
        >>> numbers = SampleNumbers(2, first_sample=33, classes="mild,severe", class_names=names)
        >>> numbers.requested, len(numbers), numbers.class_name(33)
        (range(33, 35), 32, 'severe')
    """

    def __init__(
        self,
        num_samples: int,
        first_sample: int = 0,
        classes: str | Sequence[str] = ALL,
        class_names: Sequence[str] = (),
    ) -> None:
        first = check_int("first_sample", first_sample)
        self.requested = range(first, first + check_int("num_samples", num_samples, least=1))
        self.class_names = list(class_names)
        self.classes = chosen_classes(classes, self.class_names)
        self._drawn = range(first // BLOCK * BLOCK, -(-self.requested.stop // BLOCK) * BLOCK)

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, position: int) -> dict[str, int]:
        number = self._drawn[position]  # beyond the end: IndexError
        if not self.classes:
            return {"sample": number}
        return {"sample": number, "class": self.classes[number % len(self.classes)]}

    def class_name(self, number: int) -> str:
        """Returns the name of a sample's class; empty for an unconditional model."""
        return self.class_names[self.classes[number % len(self.classes)]] if self.classes else ""


def class_names_of(count: int, info: Mapping[str, Any]) -> list[str]:
    """Returns the names of the classes that a network is conditioned on.

    Args:
        count: number of the network's classes; 0 for an unconditional one, even if its training set had some.
        info: the facts beside the model; without names there, classes are called by their numbers.
    """
    names = [str(name) for name in info.get("classes", [])]
    return names if len(names) == count else [str(number) for number in range(count)]


def chosen_classes(classes: str | Sequence[str], names: Sequence[str]) -> list[int]:
    """Returns the indices of the chosen classes among ``names``, in the order chosen.

    Args:
        classes: names, as a list or separated by commas, or ``all``.
        names: the model's classes.
    Raises:
        UserError: an unknown class, no class, or a class for an unconditional model.

    Example:
        >>> chosen_classes("severe,none", ["none", "mild", "severe"])
        [2, 0]
    """
    if classes == ALL:
        return list(range(len(names)))
    listed = classes if isinstance(classes, (list, tuple)) else str(classes).split(",")
    chosen = [str(name).strip() for name in listed]
    if not names:
        raise UserError(f"class {', '.join(chosen)}: this model was trained without classes; leave it out")
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UserError(f"no class {', '.join(unknown) or 'chosen'}; the model has {', '.join(names)}")
    return [list(names).index(name) for name in chosen]


class MixtureSamples(Dataset[dict[str, int]]):
    """Data set of items ``{"sample": k}``, with a ``class`` in the proportions of a given set of images.

    Noise (`common.inference.prepare_batch.LatentToImage`) and class depend on k only.

    Args:
        count: number of samples.
        classes: classes of the images whose proportions are wanted, in any order; they are shuffled in a
            fixed way and repeated. None for unconditional networks.
    Raises:
        UserError: ``count`` is not a whole number of at least 1.
    """

    def __init__(self, count: int, classes: Sequence[int] | None = None) -> None:
        self.count = check_int("num_samples", count, least=1)
        self.classes: list[int] | None = None
        if classes is not None:
            self.classes = make_rng(0, "mixture").permutation(np.asarray(classes)).tolist()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, int]:
        sample = range(self.count)[number]  # beyond the end: IndexError
        if self.classes is None:
            return {"sample": sample}
        return {"sample": sample, "class": self.classes[sample % len(self.classes)]}

    def drawn_classes(self) -> list[int]:
        """Returns the classes of all samples, in order; empty for an unconditional network."""
        return [self[number]["class"] for number in range(self.count)] if self.classes else []


@torch.no_grad()
def draw_images(network: nn.Module, latents: Tensor, classes: Tensor | None = None) -> Tensor:
    """Draws images (N, 1, S, S) from latents (N, L) and, for conditional models, classes (N,).

    Runs in evaluation mode, block by block, without gradients; the network's modes are restored afterwards.
    """
    kinds = [latents] if classes is None else [latents, classes]
    with evaluating(network):
        blocks = [network(*block) for block in zip(*(kind.split(BLOCK) for kind in kinds), strict=True)]
    return torch.cat(blocks).float()

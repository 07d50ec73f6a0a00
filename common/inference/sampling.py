"""Noise for generators: sample k of a seed always has the same, however the work is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.data.datasets import ImageDataset
from common.errors import UserError, check_int
from common.rng import make_rng
from common.training.contexts import evaluating

COLUMNS = 8
"""Samples in a row of a grid."""


def latents(seed: int, samples: Iterable[int], size: int) -> Tensor:
    """The latents of samples number k of ``seed``: (B, size) float32 from N(0, I), each drawn from (seed, k).

    Args:
        samples: the numbers k.
        size: of a latent.
    """
    drawn = [make_rng(seed, "latent", int(k)).standard_normal(size, dtype=np.float32) for k in samples]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, size)


def example_noise(dataset: ImageDataset, size: int, rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """``latent`` for a grid of ``rows``, and a row of real ``image`` (of fewer: all), always the same."""
    places = np.linspace(0, len(dataset) - 1, min(COLUMNS, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(rows * COLUMNS), size),
        "image": torch.from_numpy(dataset.images[places]),
    }


def class_noise(dataset: ImageDataset, size: int, seed: int = 0) -> dict[str, Tensor]:
    """``latent``, ``class`` and ``image`` for a grid of a row for each class, the same noise in each column.

    Real images repeat where a class has fewer than a row's; a class without any is left out.
    """
    present = [index for index in range(len(dataset.class_names)) if (dataset.classes == index).any()]
    places = [np.resize(np.flatnonzero(dataset.classes == index), COLUMNS) for index in present]
    return {
        "latent": latents(seed, range(COLUMNS), size).repeat(len(present), 1),
        "class": torch.tensor(present).repeat_interleave(COLUMNS),
        "image": torch.from_numpy(dataset.images[np.concatenate(places)]),
    }


def noise_beside(dataset: ImageDataset, size: int, count: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """``latent`` for ``count`` samples, and ``image`` and ``class`` of as many real images (of fewer: all).

    These are spread evenly over the dataset: what the samples are compared with as a set, in its own mixture
    of classes.
    """
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(len(places)), size),
        "class": torch.from_numpy(dataset.classes[places]),
        "image": torch.from_numpy(dataset.images[places]),
    }


BLOCK = 32
"""Samples that go through the network together, always from a multiple of `BLOCK` on.

The last bits of an image depend on what is computed beside it. So a sample always has the same company, and
its file the same bytes, wherever a job begins and ends.
"""
ALL = "all"


class SampleNumbers(Dataset[dict[str, int]]):
    """The samples ``first_sample`` to ``first_sample + num_samples - 1``, and those that fill their blocks.

    Items are ``{"sample": k}``, with ``class`` of a conditional model: the chosen classes take turns, by the
    number, so that a sample's class is the same however a job is cut. A loader must take the items in order,
    `BLOCK` at a time.

    Args:
        num_samples: how many.
        first_sample: number of the first.
        classes: names of the model's classes to draw, as a list or with commas between, or ``all``.
        class_names: the model's classes; empty for an unconditional model.

    Attributes:
        wanted: the numbers asked for.
    Raises:
        UserError: no samples, a negative number, an unknown class, or a class for a model that knows none.
    """

    def __init__(
        self,
        num_samples: int,
        first_sample: int = 0,
        classes: str | Sequence[str] = ALL,
        class_names: Sequence[str] = (),
    ) -> None:
        first = check_int("first_sample", first_sample)
        self.wanted = range(first, first + check_int("num_samples", num_samples, least=1))
        self.class_names = list(class_names)
        self.classes = chosen_classes(classes, self.class_names)
        self._drawn = range(first // BLOCK * BLOCK, -(-self.wanted.stop // BLOCK) * BLOCK)

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, position: int) -> dict[str, int]:
        number = self._drawn[position]  # beyond the end: IndexError
        if not self.classes:
            return {"sample": number}
        return {"sample": number, "class": self.classes[number % len(self.classes)]}

    def class_name(self, number: int) -> str:
        """The name of a sample's class; empty of an unconditional model."""
        return self.class_names[self.classes[number % len(self.classes)]] if self.classes else ""


def class_names_of(count: int, info: Mapping[str, Any]) -> list[str]:
    """The classes that a network is conditioned on.

    Args:
        count: of the network's classes; 0 for an unconditional one, whose training set may have had some.
        info: what stands beside the model; without names there, the classes are called by their numbers.
    """
    names = [str(name) for name in info.get("classes", [])]
    return names if len(names) == count else [str(number) for number in range(count)]


def chosen_classes(classes: str | Sequence[str], names: Sequence[str]) -> list[int]:
    """The places of the chosen classes among ``names``, in the order chosen.

    Args:
        classes: names, as a list or with commas between, or ``all``.
        names: the model's classes.
    Raises:
        UserError: an unknown class, none, or a class for a model that knows none.
    """
    if classes == ALL:
        return list(range(len(names)))
    listed = classes if isinstance(classes, (list, tuple)) else str(classes).split(",")
    wanted = [str(name).strip() for name in listed]
    if not names:
        raise UserError(f"class {', '.join(wanted)}: this model was trained without classes; leave it out")
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise UserError(f"no class {', '.join(unknown) or 'chosen'}; the model has {', '.join(names)}")
    return [list(names).index(name) for name in wanted]


class MixtureSamples(Dataset[dict[str, int]]):
    """Items ``{"sample": k}``, with ``class`` where there are classes, mixed as in a given set of images.

    The noise follows from the number, see `common.inference.prepare_batch.LatentToImage`; so does the class.

    Args:
        count: how many.
        classes: of the images whose mixture is wanted, in any order: they are shuffled, always alike, and
            repeated as often as it takes. None for unconditional nets.
    Raises:
        UserError: ``count`` is no whole number from 1 up.
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
        """The classes of all samples, in order; empty of an unconditional net."""
        return [self[number]["class"] for number in range(self.count)] if self.classes else []


@torch.no_grad()
def draw_images(network: nn.Module, latents: Tensor, classes: Tensor | None = None) -> Tensor:
    """The network's images for latents (N, L) and, of conditional models, classes (N,): (N, 1, S, S).

    In evaluation mode, a block at a time, without gradients; the modes of the network stay as they were.
    """
    kinds = [latents] if classes is None else [latents, classes]
    with evaluating(network):
        blocks = [network(*block) for block in zip(*(kind.split(BLOCK) for kind in kinds), strict=True)]
    return torch.cat(blocks).float()

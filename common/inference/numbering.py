"""Which samples of a seed to draw, and of which class each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from common.errors import UserError
from common.numbers import whole_number

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
        first = whole_number("first_sample", first_sample)
        self.wanted = range(first, first + whole_number("num_samples", num_samples, least=1))
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

"""Where a walk through the latent space begins and ends, from the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.inference.numbering import chosen_classes
from common.numbers import whole_number


@dataclass(frozen=True)
class End:
    """One end: a drawn sample, or a real image that is to be projected.

    Args:
        which: ``from`` or ``to``, for messages.
        seed: of the sample.
        sample: its number in the seed; None for 0.
        image: file of the real image.
        slice_index: axial slice of a volume, counted from the feet; None for the middle one.
        category: name of the class; None for the sample's own, and for the best of the image.
    Raises:
        UserError: seed and image are both given, or something that belongs to one of them without it.
    """

    which: str
    seed: int | None = None
    sample: int | None = None
    image: str | os.PathLike[str] | None = None
    slice_index: int | None = None
    category: str | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and self.image is not None:
            raise UserError(f"--{self.which}_seed and --{self.which}_image: give one of the two")
        for part, whole in (("sample", self.seed), ("slice", self.image)):
            given = self.sample if part == "sample" else self.slice_index
            if given is not None and whole is None:
                needed = "seed" if part == "sample" else "image"
                raise UserError(f"--{self.which}_{part} belongs to --{self.which}_{needed}; give that too")

    @property
    def is_latent(self) -> bool:
        """Whether this says more than a class."""
        return self.seed is not None or self.image is not None

    @property
    def place(self) -> tuple[int, int]:
        """Seed and number of the sample."""
        return (
            whole_number(f"{self.which}_seed", self.seed),
            whole_number(f"{self.which}_sample", self.sample or 0),
        )

    @property
    def name(self) -> str:
        """For people."""
        return f"seed {self.seed} sample {self.sample or 0}" if self.image is None else Path(self.image).name


def check_ends(start: End, stop: End, class_names: Sequence[str]) -> None:
    """Refuses ends between which there is no walk.

    Args:
        start: must name a latent.
        stop: a latent, a class, or both.
        class_names: the model's classes; empty for an unconditional model.
    Raises:
        UserError: no latent to start from, nothing to go to, or an unknown class.
    """
    if not start.is_latent:
        raise UserError("a walk needs a start: give --from_seed or --from_image")
    for end in (start, stop):
        if end.category is not None:
            chosen_classes([end.category], class_names)
    if not stop.is_latent and stop.category is None:
        change = ", or --to_class to change the class alone" if class_names else ""
        raise UserError(f"a walk needs an end: give --to_seed or --to_image{change}")

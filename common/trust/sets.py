"""The sets of images that a trust report compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Slices as a bundle's network sees them.

    Attributes:
        images: float32 (N, 1, S, S) in [-1, 1].
        patients: one id an image; of synthetic ones each its own.
        names: the files, for lists and captions.
        labels: conditions (N, 1, S, S): {0, 1} masks, or the indices of structures; None without.
        structures: names of the label values from 1 on; one for masks.
    """

    images: Tensor
    patients: Sequence[str]
    names: Sequence[str]
    labels: Tensor | None = None
    structures: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, places: Sequence[int]) -> ImageSet:
        """The images at ``places``, in their order."""
        taken = list(places)
        return ImageSet(
            self.images[taken],
            [self.patients[place] for place in taken],
            [self.names[place] for place in taken],
            None if self.labels is None else self.labels[taken],
            self.structures,
        )


@dataclass(frozen=True)
class Sets:
    """What a report is about.

    Attributes:
        real: what the generator was, or could have been, trained on.
        heldout: real images of other patients.
        synthetic: in question.
    """

    real: ImageSet
    heldout: ImageSet
    synthetic: ImageSet

"""Images without masks in memory, with their classes, for unconditional and class-conditional nets."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.data.augment import Augmentation
from common.data.checks import read_pair
from common.data.intensity import Window, to_unit
from common.data.pairs import PairDataset
from common.data.resizing import fit_square
from common.data.samples import Sample
from common.data.sampling import Draw
from common.data.standardise import Standardiser
from common.errors import UserError


class ImageDataset(PairDataset):
    """CT slices (1, S, S) in [-1, 1], each with the index of its class.

    As `common.data.pairs.PairDataset`, without masks. Items hold ``image``, ``class`` and ``sample``.

    Args:
        samples: what to load.
        class_names: the classes; an item's ``class`` is its category's place among them.
        image_size: S in pixels.
        fit: how slices become square, see `common.data.resizing.fit_square`.
        flips: double the set: image i + N is the left-right flip of image i, as paper C's training set.
        window, standardiser, fit_standardiser, augment, seed, source_range: as there.

    Attributes:
        samples: one for each image, flips included.
        images: float32 (N, 1, S, S) in [-1, 1], flips included.
        classes: int64 (N,).
    Raises:
        UserError: a bad file, no images, or all of them the same.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        image_size: int,
        fit: str = "pad",
        flips: bool = False,
        window: str | Window | Sequence[float] = "lung",
        standardiser: Standardiser | None = None,
        fit_standardiser: bool = False,
        augment: Augmentation | None = None,
        seed: int = 0,
        source_range: Sequence[float] | None = None,
    ) -> None:
        self.class_names = list(class_names)
        super().__init__(
            [_unmasked(sample) for sample in samples],
            image_size,
            window,
            standardiser,
            fit_standardiser,
            augment,
            seed,
            source_range=source_range,
            fit=fit,
        )
        places = [self.class_names.index(sample.category) for sample in self.samples]
        self.classes = np.array(places, np.int64)
        self._check_variety()
        if flips:
            self._double()

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        item = super().__getitem__(visit)
        return {**item, "class": int(self.classes[item["sample"]])}

    def with_flips(self) -> ImageDataset:
        """A copy that holds each image's left-right flip too: what such a training set is compared with."""
        doubled = copy.copy(self)
        doubled._double()
        return doubled

    def counts(self) -> dict[str, int]:
        """The number of images of each class."""
        counted = Counter(self.classes.tolist())
        return {name: counted[index] for index, name in enumerate(self.class_names)}

    def _load(self, sample: Sample) -> tuple[np.ndarray, np.ndarray | None, bool]:
        pixels = read_pair(sample).pixels
        source = pixels.source_range if self.source_range is None else tuple(self.source_range)
        unit = to_unit(pixels.values, self.window, pixels.is_hu, (float(source[0]), float(source[1])))
        return fit_square(unit, self.image_size, self.fit), None, pixels.is_hu

    def _double(self) -> None:
        self.images = np.concatenate([self.images, self.images[..., ::-1]])  # (2 N, 1, S, S)
        self.classes = np.concatenate([self.classes, self.classes])
        self.samples = [*self.samples, *self.samples]

    def _check_variety(self) -> None:
        if len(self.images) > 1 and (self.images == self.images[:1]).all():
            raise UserError(
                f"{self.samples[0].image.parent}: all {len(self.images)} images are the same; "
                "there is nothing to learn, bring different ones"
            )


def _unmasked(sample: Sample) -> Sample:
    if sample.mask is not None:
        raise ValueError(f"{sample.image}: this set is for images without masks")
    return sample

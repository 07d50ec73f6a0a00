"""Random transforms and noise that are the same in any process, in any worker and after any restart.

MONAI seeds random transforms once, before training: what a sample gets depends on all samples before it, so
a resumed run differs from a straight one. Here every random transform is seeded anew for each sample, from
(run seed, epoch, index) and its own name. Any of MONAI's random transforms can be replayed in this way, as
they draw all their numbers from the generator that `Randomizable.set_random_state` sets.

The noise of a slice is drawn from the name of its file and its position. A generator that makes fine texture
from noise makes another texture in every slice of a volume from independent noise, and the same one (columns
along the slice axis) from constant noise. `slice_noise` is therefore white within a slice, as in training,
and correlated across slices: exp(-(d / 4 mm)^2) at distance d, which is 0.94 at 1 mm and 0.21 at 5 mm.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from monai.transforms import Compose, Randomizable, RandomizableTrait
from torch.utils.data import Dataset

from common.data.loaders import SampleIndex
from common.errors import UserError
from common.rng import make_rng

Transform = Callable[[Any], Any]
Transforms: TypeAlias = "Transform | Sequence[Transforms] | None"
"""One transform, a list, or (nested) lists."""
Item = dict[Any, Any]
SEEDS = 2**32


def flatten_transforms(transform: Transforms) -> list[Transform]:
    """The transforms of nested `Compose` objects in order; None is no transform.

    `OneOf`, `SomeOf`, `RandomOrder` and lazy compositions stay one transform each.

    Raises:
        UserError: something in the list is no transform.
    """
    if transform is None:
        return []
    if isinstance(transform, (list, tuple)):
        return [leaf for member in transform for leaf in flatten_transforms(member)]
    if type(transform) is Compose and not transform.lazy:
        return flatten_transforms(list(transform.transforms))
    if not callable(transform):
        raise UserError(f"transforms: {transform!r} is no transform; write each as a _target_ with arguments")
    return [transform]


def is_random(transform: Transform) -> bool:
    """Whether a transform draws random numbers."""
    return isinstance(transform, (Randomizable, RandomizableTrait))


class ReplayTransforms:
    """Applies transforms in order; the random ones are seeded from (seed, epoch, index) and their own name.

    The name is the class and how many of that class come before, so a transform that is inserted does not
    change what the others draw.

    Args:
        transform: MONAI dictionary transforms: one, a list, or (nested) `Compose` objects.
        seed: the run's seed.

    Example:
        >>> from monai.transforms import RandGaussianNoised
        >>> replay = ReplayTransforms(RandGaussianNoised(keys="image", prob=1.0), seed=0)
        >>> item = {"image": torch.zeros(1, 4, 4)}
        >>> first, again, later = (replay(item, SampleIndex(7, epoch))["image"] for epoch in (0, 0, 1))
        >>> torch.equal(first, again), torch.equal(first, later)
        (True, False)
    """

    def __init__(self, transform: Transforms, seed: int = 0) -> None:
        self.transforms, self.seed = flatten_transforms(transform), seed
        counts: Counter[str] = Counter()
        self._names: list[tuple[str, int]] = []
        for member in self.transforms:
            name = type(member).__name__
            self._names.append((name, counts[name]))
            counts[name] += 1

    def __bool__(self) -> bool:
        return bool(self.transforms)

    def __call__(self, item: Mapping[Any, Any], index: SampleIndex | int) -> Item:
        """The transformed item with plain tensors. A plain int leaves the random transforms out."""
        result: Any = dict(item)
        with no_metadata():
            for transform, (name, occurrence) in zip(self.transforms, self._names, strict=True):
                if is_random(transform):
                    if not isinstance(index, SampleIndex):
                        continue
                    if isinstance(transform, Randomizable):
                        rng = make_rng(self.seed, name, occurrence, index.epoch, index.index)
                        transform.set_random_state(seed=int(rng.integers(SEEDS)))
                result = transform(result)
        return plain_tensors(result)


@contextmanager
def no_metadata() -> Iterator[None]:
    """MONAI's transforms give plain tensors within; it saves a third of their time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def plain_tensors(item: Mapping[Any, Any]) -> Item:
    """The item with arrays and `MetaTensor` objects as contiguous tensors; float64 becomes float32."""
    return {key: _plain(value) for key, value in item.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, MetaTensor):
        value = value.as_tensor()
    elif isinstance(value, np.ndarray):
        value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if not isinstance(value, torch.Tensor):
        return value
    return (value.float() if value.dtype == torch.float64 else value).contiguous()


class ReplayDataset(Dataset[Item]):
    """Items with their transforms: up to the first random transform once, from there on at each access.

    A `SampleIndex` gives the sample as that epoch has it, an int index the sample without random transforms.
    Like `monai.data.CacheDataset`, whose random transforms however depend on the order of access.

    Args:
        items: dictionaries, as MONAI's datasets take them.
        transform: MONAI dictionary transforms: one, a list, or (nested) `Compose` objects.
        seed: the run's seed.

    Example:
        >>> from monai.transforms import Compose, RandFlipd, ScaleIntensityd
        >>> items = [{"image": torch.arange(4.0).reshape(1, 2, 2)}]
        >>> transform = Compose([ScaleIntensityd("image"), RandFlipd("image", prob=0.5, spatial_axis=1)])
        >>> dataset = ReplayDataset(items, transform, seed=1)
        >>> dataset[0]["image"].max()
        tensor(1.)
        >>> [bool(dataset[SampleIndex(0, epoch)]["image"][0, 0, 0] > 0) for epoch in range(4)]
        [True, True, False, False]
    """

    def __init__(
        self,
        items: Sequence[Mapping[Any, Any]],
        transform: Transforms,
        seed: int = 0,
    ) -> None:
        fixed, varying = split_at_first_random(transform)
        self.items = [plain_tensors(ReplayTransforms(fixed)(item, 0)) for item in items]
        self.varying = ReplayTransforms(varying, seed)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: SampleIndex | int) -> Item:
        number = index.index if isinstance(index, SampleIndex) else int(index)
        return self.varying(self.items[number], index)


def split_at_first_random(
    transform: Transforms,
) -> tuple[list[Transform], list[Transform]]:
    """The transforms before the first random one, which are the same at each access, and the others."""
    transforms = flatten_transforms(transform)
    first = next((n for n, member in enumerate(transforms) if is_random(member)), len(transforms))
    return transforms[:first], transforms[first:]


KNOT_MM = 2.0
"""Distance in mm of the independent planes that are mixed, and standard deviation of the weights."""
REACH = 4
"""Planes on each side that are mixed; the weight of the next is below 4e-6 of the nearest."""


def noise_coordinates(name: str, mm: float = math.nan) -> dict[str, Any]:
    """Returns the entries ``noise_key`` and ``noise_mm`` of an item, which determine the noise of a slice.

    Args:
        name: file name without folder; equal names have equal noise.
        mm: position of the slice along the slice axis, rounded to 0.001 mm (the last digits of a header
            change with the order of the axes); NaN for a picture, which has no neighbours.
    """
    return {"noise_key": zlib.crc32(name.encode()), "noise_mm": round(float(mm), 3)}


def slice_noise(seed: int, key: int, mm: float, channels: int, size: int) -> np.ndarray:
    """Returns N(0, 1) noise of one slice, float32 (channels, size, size).

    Args:
        seed: different seeds give different images of the same files.
        key, mm: from `noise_coordinates`.

    Example:
        >>> here, near = (slice_noise(0, key=7, mm=mm, channels=1, size=64) for mm in (10.0, 11.0))
        >>> round(float((here * near).mean()), 1)
        0.9
    """
    if math.isnan(mm):
        return _plane(seed, key, None, channels, size)
    middle = round(mm / KNOT_MM)
    knots = np.arange(middle - REACH, middle + REACH + 1)
    weights = np.exp(-((mm / KNOT_MM - knots) ** 2) / 2)
    weights /= np.sqrt((weights**2).sum())  # to standard deviation 1
    noise = np.zeros((channels, size, size), np.float32)
    for knot, weight in zip(knots, weights, strict=True):
        noise += np.float32(weight) * _plane(seed, key, int(knot), channels, size)
    return noise


@lru_cache(maxsize=4 * REACH)
def _plane(seed: int, key: int, knot: int | None, channels: int, size: int) -> np.ndarray:
    """Returns an independent plane; neighbouring slices share most of them."""
    where = (key,) if knot is None else (key, "knot", knot + 2**31)  # numpy takes no negative numbers
    return make_rng(seed, "noise", *where).standard_normal((channels, size, size), dtype=np.float32)

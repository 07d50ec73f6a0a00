"""Data sets and datasets with the bundles' default transforms, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose, RandAffined, RandFlipd

from common.data.datamodules import ImageData, PairData, StructureData
from common.data.datasets import ImageDataset, PairDataset
from common.data.labels import LabelSet
from common.data.samples import Sample
from common.data.transforms import FitSquared, LoadCachedSliced, RandGaind, slice_preprocessing

PREPROCESSING = ("window", "fit", "standardise", "state", "source_range")
VALUES = ("hu_offset", "source_range", "mask_threshold", "ignore_value")
CACHE = ("window", "percentiles", "axis", "spacing", "interpolation", "fit", "workers", *VALUES)
PAIR = ("image", "label")


def light(size: int, keys: Sequence[str] = PAIR) -> Compose:
    """The bundles' augmentation."""
    affine = RandAffined(
        keys,
        prob=1.0,
        rotate_range=0.105,
        translate_range=[0.04 * size] * 2,
        scale_range=[0.06] * 2,
        mode=["bilinear", "nearest"][: len(keys)],
        padding_mode="border",
    )
    return Compose([affine, RandGaind("image", 0.02)])


def mirror(keys: Sequence[str] = PAIR) -> RandFlipd:
    """Always mirrors."""
    return RandFlipd(keys, prob=1.0, spatial_axis=1)


def pair_data(folder: Path, size: int, **settings: Any) -> PairData:
    """`PairData` whose settings may be those of `slice_preprocessing`, too."""
    given, rest = _parted(settings, PREPROCESSING)
    return PairData(folder, slice_preprocessing(PAIR, size, **given), **rest)


def pair_dataset(samples: Sequence[Sample], size: int, **settings: Any) -> PairDataset:
    """`PairDataset` likewise."""
    given, rest = _parted(settings, PREPROCESSING)
    return PairDataset(samples, slice_preprocessing(PAIR, size, **given), **rest)


def square(size: int, fit: str = "pad") -> FitSquared:
    """The part of a preprocessing that a mask goes through."""
    return FitSquared("label", size, fit, "nearest")


def image_data(folder: Path, size: int, **settings: Any) -> ImageData:
    """`ImageData` likewise."""
    given, rest = _parted(settings, PREPROCESSING)
    return ImageData(folder, slice_preprocessing("image", size, **given), **rest)


def image_dataset(
    samples: Sequence[Sample], classes: Sequence[str], size: int, **settings: Any
) -> ImageDataset:
    """`ImageDataset` likewise."""
    given, rest = _parted(settings, PREPROCESSING)
    return ImageDataset(samples, classes, slice_preprocessing("image", size, **given), **rest)


def structure_data(folder: Path, size: int, store: Path, **settings: Any) -> StructureData:
    """`StructureData` whose settings may be those of `LoadCachedSliced` and `LabelSet`, too."""
    given, rest = _parted(settings, CACHE)
    names = {name: rest.pop(name) for name in ("labels", "label_map") if name in rest}
    labels = LabelSet(**names, coarse=rest.get("coarse", 0) > 0)
    is_image = rest.pop("condition", "label") == "image"
    loader = LoadCachedSliced(PAIR, size, store, None if is_image else labels, **given)
    return StructureData(folder, loader, **rest)


def _parted(settings: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {k: v for k, v in settings.items() if k in names}, {
        k: v for k, v in settings.items() if k not in names
    }

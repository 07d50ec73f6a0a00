"""Dictionary transforms of our own for the configs' `Compose` lists, beside MONAI's, and what they do.

`LoadSliced`, `WindowHUd`, `FitSquared` and `StandardizeIntensityd` (slices in memory) or `LoadCachedSliced`
(planes of volumes) make of a file what a network sees; everything else in the configs' lists is MONAI's.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pydoc import locate
from typing import Any

import monai.transforms
import numpy as np
from monai.transforms import Compose, MapTransform, RandomizableTransform, ScaleIntensityRanged

from common.data.hu_calibration import check_source_range
from common.data.image_io import read_pair
from common.data.intensity import Standardiser, Window, to_unit, window_by_name
from common.data.labels import LabelSet
from common.data.replay import Transform, Transforms, flatten_transforms
from common.data.samples import Sample
from common.data.slice_cache import CachedPair, SliceCache, SliceReader, cached_pair
from common.data.slice_geometry import FileValues, Geometry, Intensity, check_fit_name, fit_mask, fit_square
from common.errors import UserError

Keys = str | Sequence[str]
Item = dict[Any, Any]


class LoadSliced(MapTransform):
    """Reads a CT slice and, with the key ``label``, its mask, from the `Sample` under ``record``.

    Adds ``image``, float32 (1, H, W) upright with the file's values, ``label``, uint8 {0, 1} (1, H, W),
    and what the values mean: ``is_hu``, else ``source_range``, the values of black and white.

    Args:
        keys: ``image``, or ``[image, label]``.
        source_range: black and white of files that are not HU, in place of the record's own.
    Raises:
        UserError: a bad file, see `common.data.image_io.read_pair`.
    """

    def __init__(self, keys: Keys, source_range: Sequence[float] | None = None) -> None:
        super().__init__(keys)
        self.source_range = None if source_range is None else check_source_range(source_range)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        record = data["record"]
        if self.source_range is not None:
            record = replace(record, source_range=self.source_range)
        pixels, mask = read_pair(record)
        item = {**data, "image": pixels.values[None], "is_hu": pixels.is_hu}
        item["source_range"] = pixels.source_range
        if "label" in self.keys and mask is not None:
            item["label"] = mask[None]
        return item


class WindowHUd(MapTransform):
    """Maps a HU window to [0, 1], clipped; values that are not HU are mapped by their full range instead.

    MONAI's `ScaleIntensityRanged` knows no files without HU. Those carry ``is_hu`` False and
    ``source_range``, as `LoadSliced` sets them; items without these are HU.

    Args:
        keys: images, any shape.
        window: a preset's name or [lower, upper] in HU, see `common.data.intensity.WINDOWS`.

    Example:
        >>> WindowHUd("image", [-1000, 400])({"image": np.array([-1500.0, -300.0, 400.0])})["image"]
        array([0. , 0.5, 1. ], dtype=float32)
    """

    def __init__(self, keys: Keys, window: str | Window | Sequence[float] = "lung") -> None:
        super().__init__(keys)
        self.window = window_by_name(window)

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        item = dict(data)
        is_hu, source_range = item.get("is_hu", True), item.get("source_range", (0.0, 255.0))
        for key in self.key_iterator(item):
            item[key] = to_unit(np.asarray(item[key]), self.window, is_hu, source_range)
        return item


class FitSquared(MapTransform):
    """Resizes slices (1, H, W) to squares (1, S, S), see `fit_square`.

    Args:
        keys: images in [0, 1], and labels.
        image_size: S in pixels.
        fit: ``pad``, ``crop`` or ``stretch``.
        mode: of each key: ``bilinear`` (averaging where it shrinks) or ``nearest``.
    Raises:
        UserError: ``fit`` is unknown.

    Example:
        >>> FitSquared("image", 8)({"image": np.ones((1, 4, 6))})["image"].shape
        (1, 8, 8)
    """

    def __init__(
        self, keys: Keys, image_size: int, fit: str = "pad", mode: Keys = ("bilinear", "nearest")
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_size, self.fit = int(image_size), check_fit_name(fit)
        modes = [mode] * len(self.keys) if isinstance(mode, str) else list(mode)
        self.modes = dict(zip(self.keys, modes, strict=False))

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        item = dict(data)
        for key in self.key_iterator(item):
            resize = fit_mask if self.modes[key] == "nearest" else fit_square
            item[key] = resize(np.asarray(item[key])[0], self.image_size, self.fit)[None]
        return item


class StandardizeIntensityd(MapTransform):
    """Brings slices in [0, 1] that were exported through different windows to a common intensity standard.

    The standard is learned from the training set, and a scan's slices are mapped together, so a data set
    calls `map_items` with all items. A single item is mapped by itself. HU are left as they are.

    Args:
        keys: ``image``.
        method: ``none``, ``landmarks`` or ``histogram``, see `common.data.intensity`.
        window: HU window of the result; must be that of `WindowHUd`.
        state: of a trained model (``standardiser`` in its JSON); then nothing is learned.
    Raises:
        UserError: ``method`` is unknown.
    """

    def __init__(
        self,
        keys: Keys,
        method: str = "landmarks",
        window: str | Window | Sequence[float] = "lung",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.standardiser = (
            Standardiser(method, window_by_name(window)) if state is None else Standardiser.from_state(state)
        )
        self.learns = state is None and method != "none"

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        return self.map_items([data])[0]

    def map_items(self, items: Sequence[Mapping[Hashable, Any]], training: bool = False) -> list[Item]:
        """Maps items scan by scan (entry ``patient``).

        Args:
            training: learn the standard from these items first.
        """
        result = [dict(item) for item in items]
        scans: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(result):
            if not item.get("is_hu", True):
                scans[str(item.get("patient", index))].append(index)
        for key in self.keys:
            units = {
                patient: [np.asarray(result[n][key])[0] for n in scan] for patient, scan in scans.items()
            }
            if training and self.learns:
                self.standardiser.fit(units)
            for patient, scan in scans.items():
                for n, image in zip(scan, self.standardiser.apply_scan(units[patient]), strict=True):
                    result[n][key] = image[None]
        return result


class LoadCachedSliced(MapTransform):
    """Reads planes of volumes, or pictures, as squares (1, S, S) from a cache that is filled at first use.

    Windowed, cut, resampled and stored once; then a slice is read at memory speed. Adds ``image`` in [-1, 1]
    and ``label``: class indices 0..K, or, without ``label_set``, a second image in [-1, 1].
    `common.data.datamodules.StructureData` reads whole batches in this way.

    Args:
        keys: ``[image, label]``.
        image_size: S in pixels.
        store_dir: folder of the cache.
        label_set: the classes; None where ``label`` is a second image.
        window: HU window: a preset's name or [lower, upper].
        percentiles: (lower, upper) per cent of each volume's own voxels become -1 and 1 instead, for MR.
        axis, spacing, interpolation, fit: see `common.data.slice_geometry.Geometry`.
        hu_offset, source_range: what the values of images mean, see `common.data.hu_calibration.calibrate`;
            without meaning if there are ``percentiles``.
        mask_threshold, ignore_value: of labels, see `common.data.mask_values.whole_labels`.
        workers: processes that fill the cache; None for all cores.
    Raises:
        UserError: a bad setting.
    """

    def __init__(
        self,
        keys: Keys,
        image_size: int,
        store_dir: str | os.PathLike[str],
        label_set: LabelSet | None = None,
        window: str | Window | Sequence[float] = "angiography",
        percentiles: Sequence[float] | None = None,
        axis: str = "axial",
        spacing: float | None = None,
        interpolation: str = "area",
        fit: str = "pad",
        hu_offset: float | None = None,
        workers: int | None = None,
        source_range: Sequence[float] | None = None,
        mask_threshold: float | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys)
        self.geometry = Geometry(int(image_size), axis, spacing, interpolation, fit)
        self.intensity, self.label_set = _intensity(window, percentiles), label_set
        self.values = FileValues.of(hu_offset, source_range, mask_threshold, ignore_value)
        self.cache = SliceCache(store_dir, self.geometry, workers)

    def convert(self, samples: Sequence[Sample], label_set: LabelSet | None = None) -> list[CachedPair]:
        """Fills the cache with the samples' files and returns each image with its label.

        Args:
            label_set: takes the place of the own one.
        Raises:
            UserError: a bad file, or image and label that do not fit.
        """
        label_set = label_set or self.label_set
        image, label = self.values.image(self.intensity), self.values.label()
        images = [image(s.image, orientation=s.orientation) for s in samples]
        second = image if label_set is None else label
        labels = [second(s.mask, orientation=s.orientation) for s in samples if s.mask is not None]
        cached = self.cache.convert([*images, *labels])
        pairs = zip(samples, cached[: len(samples)], cached[len(samples) :], strict=True)
        return [cached_pair(sample, image, label, label_set) for sample, image, label in pairs]

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        (pair,), reader = self.convert([data["record"]]), SliceReader()
        index = data["record"].index or 0
        image = reader.image(pair.image, index)[None] * np.float32(2) - np.float32(1)
        if pair.table is None:
            label = reader.image(pair.label, index)[None] * np.float32(2) - np.float32(1)
        else:
            label = pair.table[reader.label(pair.label, index)][None].astype(np.float32)
        return {**data, "image": image, "label": label}


def _intensity(window: str | Window | Sequence[float], percentiles: Sequence[float] | None) -> Intensity:
    if percentiles is None:
        limits = window_by_name(window)
        return Intensity("window", float(limits.lower), float(limits.upper))
    if len(percentiles) != 2:
        raise UserError(f"percentiles {list(percentiles)}: give two numbers, such as [1, 99]")
    return Intensity("percentile", float(percentiles[0]), float(percentiles[1]))


class RandGaind(RandomizableTransform, MapTransform):
    """Multiplies the gray values above black (-1) by a random factor; the result is clipped to [-1, 1].

    Scanners differ so: air and padding stay what they are, which `RandScaleIntensityd` would change.

    Args:
        keys: images in [-1, 1].
        factor: largest relative change.
        prob: probability of a change.

    Example:
        >>> RandGaind("image", 0.5, prob=1.0).set_random_state(0)({"image": np.array([-1.0, 0.0])})["image"]
        array([-1.        ,  0.21518937])
    """

    def __init__(self, keys: Keys, factor: float = 0.02, prob: float = 1.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.factor = factor

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        item = dict(data)
        self.randomize(None)
        gain = 1.0 + self.factor * self.R.uniform(-1.0, 1.0)
        if self._do_transform:
            for key in self.key_iterator(item):
                item[key] = ((item[key] + 1.0) * gain - 1.0).clip(-1.0, 1.0)
        return item


def slice_preprocessing(
    keys: Keys,
    image_size: int,
    window: str | Window | Sequence[float] = "lung",
    fit: str = "pad",
    standardise: str = "none",
    state: Mapping[str, Any] | None = None,
    source_range: Sequence[float] | None = None,
) -> Compose:
    """The ``preprocessing`` of the slice bundles' configs: a file becomes (1, S, S) in [-1, 1].

    Args:
        keys: ``image``, or ``[image, label]``.
        image_size, window, fit, standardise, state, source_range: see the transforms.
    """
    return Compose(
        [
            LoadSliced(keys, source_range),
            WindowHUd("image", window),
            FitSquared(keys, image_size, fit),
            StandardizeIntensityd("image", standardise, window, state),
            ScaleIntensityRanged("image", 0.0, 1.0, -1.0, 1.0),
        ]
    )


def preprocessing_of_model(
    info: Mapping[str, Any],
    keys: Keys,
    image_size: int,
    window: str | Sequence[float] = "lung",
    fit: str = "pad",
) -> Compose:
    """The preprocessing that a model was trained with, from the JSON beside it.

    Args:
        info: see `common.inference.checkpoint.model_info`. Models of earlier versions name no transforms but
            window, fit and standardiser.
        keys: ``image``, or ``[image, label]``.
        image_size, window: take the place of the model's own.
        fit: of a model that does not say its own.
    Raises:
        UserError: it names a transform that is neither MONAI's nor this project's.
    """
    state = info.get("standardiser")
    if not info.get("preprocessing"):
        return slice_preprocessing(keys, image_size, window, info.get("fit", fit), state=state)
    own: dict[type, dict[str, Any]] = {
        FitSquared: {"image_size": image_size},
        WindowHUd: {"window": window},
        StandardizeIntensityd: {"window": window, "state": state},
    }
    return Compose(recorded_transforms(info, own))


def recorded_transforms(
    info: Mapping[str, Any], arguments: Mapping[type, Mapping[str, Any]] | None = None
) -> list[Transform]:
    """The transforms that stand in a model's JSON under ``preprocessing``.

    Args:
        info: see `common.inference.checkpoint.model_info`.
        arguments: by class, in place of those that are recorded.
    Raises:
        UserError: it names a transform that is neither MONAI's nor this project's.
    """
    transforms = []
    for entry in info.get("preprocessing") or []:
        kind = _transform_class(entry["target"])
        transforms.append(kind(**{**entry["arguments"], **(arguments or {}).get(kind, {})}))
    return transforms


def _transform_class(target: str) -> Any:
    kind: Any = locate(target) if target.startswith("common.data.") else None
    if kind is None and (target.startswith("monai.transforms.") or "." not in target):
        kind = getattr(monai.transforms, target.rsplit(".", 1)[-1], None)
    if not (isinstance(kind, type) and issubclass(kind, monai.transforms.Transform)):
        raise UserError(
            f"the model was trained with the transform {target!r}, which is neither MONAI's nor this "
            "project's; give the list preprocessing of its training in an overlay"
        )
    return kind


def find_transform(transform: Transforms, kind: type) -> Any:
    """The first transform of a class, or None."""
    return next((member for member in flatten_transforms(transform) if isinstance(member, kind)), None)


FEW = 1000
"""With at most this many training slices ``augment: auto`` augments; in larger sets patients vary enough."""


def choose_augmentation(augment: str | None, augmentation: Transform | None, slices: int) -> Transform | None:
    """What the setting ``augment`` makes of a config's list ``augmentation``.

    Args:
        augment: ``light``: the list; ``auto``: the list for at most `FEW` slices; ``none`` or None: nothing.
        augmentation: MONAI dictionary transforms.
        slices: in the training set.
    Raises:
        UserError: another word.
    """
    if augment not in ("auto", "light", "none", None):
        raise UserError(
            f"augment {augment!r} is unknown; choose auto, light or none, or change the list augmentation"
        )
    augments = augment == "light" or (augment == "auto" and slices <= FEW)
    return augmentation if augments else None

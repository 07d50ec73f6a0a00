"""Banks of nodules and healthy slices as training data, split by patient, with a class for each image."""

from __future__ import annotations

import copy
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import ConcatItemsd, RandRotate90d, ScaleIntensityRanged
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bundles.lung_two_stage.banks import RECORDS, NoduleBank, NoduleRecord, SliceBank, SliceRecord
from common.data.intensity import Window, from_network, to_hu, window_by_name
from common.data.loaders import SampleIndex
from common.data.replay import ReplayTransforms, Transform, Transforms
from common.data.samples import ORIENTATIONS, Sample
from common.data.slice_geometry import resize_image
from common.data.splits import SplitData
from common.data.transforms import (
    FitSquared,
    WindowHUd,
    choose_augmentation,
    find_transform,
    recorded_transforms,
)
from common.errors import UserError

NODULES, HEALTHY_SLICES = "nodules", "healthy_slices"
LAYERS = (NODULES, HEALTHY_SLICES)
"""Layers I and II of a composite (Chi 2023)."""
CATEGORY, DIAMETER, NONE = "category", "diameter", "none"
FALLBACKS = (NONE, DIAMETER)
SIZES = ("small", "medium", "large")
FRACTIONS = (0.8, 0.1, 0.1)
"""Shares of the patients in train, val and test."""
OPAQUE = 255
"""Alpha of a pixel that is all nodule."""
INSIDE = 128
"""Least alpha of a pixel of the nodule's mask."""
EXTRACTION = "python -m monai.bundle run extraction --config_file bundles/lung_two_stage/configs/extract.yaml"
"""The command that makes the banks, for messages."""
Record = NoduleRecord | SliceRecord
Images = NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """The classes of a bank's records.

    Args:
        kind: ``category``, ``diameter`` or ``none``.
        names: of the classes, in order.
        bounds_mm: the diameters between small, medium and large nodules.
    """

    kind: str
    names: list[str]
    bounds_mm: tuple[float, ...] = ()

    def name_of(self, record: Record) -> str:
        """The name of a record's class; empty where there are no classes."""
        if self.kind == CATEGORY:
            return str(getattr(record, "category", ""))
        if self.kind == DIAMETER and isinstance(record, NoduleRecord):
            return self.names[int(np.searchsorted(self.bounds_mm, record.diameter_mm, side="right"))]
        return ""

    def metadata(self) -> dict[str, Any]:
        """The facts stored with a model, as plain JSON."""
        return {"classes": self.names, "classes_by": self.kind, "bounds_mm": list(self.bounds_mm)}


def classes_of(records: Sequence[Record], training: Sequence[int], fallback: str = NONE) -> Classes:
    """Takes the categories as classes where every record has one and there are several, else ``fallback``.

    Args:
        records: of the whole bank.
        training: indices of the training records, whose terciles are the bounds of the sizes.
        fallback: ``none``, or ``diameter`` for small, medium and large nodules.
    Raises:
        UserError: an unknown fallback, or slices by diameter.

    Example:
        >>> records = [NoduleRecord(str(d), "p", "", d, 1.0) for d in (4.0, 6.0, 9.0)]
        >>> classes_of(records, range(3), "diameter").name_of(records[2])
        'large'
    """
    if fallback not in FALLBACKS:
        raise UserError(f"classes by {fallback!r}: choose {' or '.join(FALLBACKS)}")
    categories = {str(getattr(record, "category", "")) for record in records}
    if "" not in categories and len(categories) > 1:
        return Classes(CATEGORY, sorted(categories))
    if fallback == NONE:
        return Classes(NONE, [])
    diameters = [record.diameter_mm for record in records if isinstance(record, NoduleRecord)]
    if len(diameters) < len(records):
        raise UserError("slices have no diameter; take a bank of nodules")
    lower, upper = np.quantile([diameters[index] for index in training], [1 / 3, 2 / 3])
    return Classes(DIAMETER, list(SIZES), (float(lower), float(upper)))


def bank_preprocessing(image_size: int, window: Window) -> list[Transform]:
    """The list ``preprocessing`` of the configs, for models that were trained before there was one.

    Example:
        >>> bank = NoduleBank(np.full((1, 4, 4), -300, np.int16), np.zeros((1, 4, 4), np.uint8), [])
        >>> prepare_images(bank, bank_preprocessing(2, Window(-1000, 400)))[0, :, 0, 0]  # HU, alpha
        array([ 0., -1.], dtype=float32)
    """
    return [
        WindowHUd("image", window),
        FitSquared(["image", "alpha"], image_size, "stretch", "bilinear"),
        ConcatItemsd(["image", "alpha"], "image", allow_missing_keys=True),
        ScaleIntensityRanged("image", 0.0, 1.0, -1.0, 1.0),
    ]


def prepare_images(bank: NoduleBank | SliceBank, preprocessing: Transforms) -> Images:
    """The images of a bank as a generator draws them: (N, C, S, S) in [-1, 1].

    Args:
        bank: of N entries.
        preprocessing: MONAI dictionary transforms of ``image``, HU (1, H, W), and of a nodule's ``alpha``,
            (1, H, W) in [0, 1]; what becomes of ``image`` is taken.
    """
    prepare, items = ReplayTransforms(preprocessing), [{"image": np.float32(hu[None])} for hu in bank.hu]
    if isinstance(bank, NoduleBank):
        for item, alpha in zip(items, bank.alpha, strict=True):
            item["alpha"] = np.float32(alpha[None] / OPAQUE)
    return np.stack([prepare(item, 0)["image"].numpy() for item in items])


def images_to_hu(images: Images, window: Window, height: int, width: int) -> NDArray[np.int16]:
    """The first channel of (N, C, S, S) in [-1, 1] as HU of the window: (N, height, width) int16."""
    return to_hu(_resized(from_network(images[:, 0]), height, width), window)


def images_to_alpha(images: Images, size: int) -> NDArray[np.uint8]:
    """The second channel of (N, 2, S, S) in [-1, 1] as alpha: (N, size, size) uint8."""
    alpha = _resized(from_network(images[:, 1]), size)
    return np.rint(alpha * OPAQUE).astype(np.uint8)


def _resized(units: Images, height: int, width: int | None = None) -> Images:
    """(N, H, W) to (N, height, width)."""
    size = height, height if width is None else width
    if units.shape[1:] == size:
        return units
    return np.stack([resize_image(unit, *size) for unit in units])


class BankImages(Dataset[dict[str, Any]]):
    """Images of a bank. Items hold ``image`` (C, S, S) in [-1, 1], ``class`` and ``sample``.

    An int index gives the image as it is; a `SampleIndex` gives it with the random transforms of that epoch.

    Args:
        images: (N, C, S, S) in [-1, 1].
        samples: N; their category is the class's name.
        class_names: the classes; without any, all images are of class 0.
        augmentation: random MONAI dictionary transforms of ``image``; None for none.
        seed: the run's seed, for the augmentation.
        turned: whether training shows all eight flips and rotations.

    Attributes:
        classes: int64 (N,).
    """

    dropped = 0

    def __init__(
        self,
        images: Images,
        samples: Sequence[Sample],
        class_names: Sequence[str] = (),
        augmentation: Transforms = None,
        seed: int = 0,
        turned: bool = False,
    ) -> None:
        self.images, self.samples, self.class_names = images, list(samples), list(class_names)
        self.augmentation, self.turned = ReplayTransforms(augmentation, seed), turned
        indices = [self.class_names.index(sample.category) if class_names else 0 for sample in samples]
        self.classes = np.array(indices, np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        number = index.index if isinstance(index, SampleIndex) else int(index)
        image, kind = torch.from_numpy(self.images[number]), int(self.classes[number])
        return self.augmentation({"image": image, "class": kind, "sample": number}, index)

    def first_channel(self) -> BankImages:
        """The same images without alpha: what metrics and pictures take, (N, 1, S, S)."""
        result = copy.copy(self)
        result.images = np.ascontiguousarray(self.images[:, :1])
        return result

    def as_seen(self) -> BankImages:
        """Every image as training may show it: in all orientations where they are turned."""
        if not self.turned:
            return self
        turns = range(len(ORIENTATIONS))
        result = copy.copy(self)
        result.images = np.concatenate([np.stack([turn(image, n) for image in self.images]) for n in turns])
        result.classes = np.tile(self.classes, len(turns))
        result.samples = self.samples * len(turns)
        return result

    def counts(self) -> dict[str, int]:
        """The number of images of each class."""
        counted = Counter(self.classes.tolist())
        return {name: counted[index] for index, name in enumerate(self.class_names)}


class BankData(SplitData[BankImages]):
    """A bank, split by patient: 4 of 5 to learn from, the rest in halves to choose the model and to test it.

    Chi 2023 splits 4:1 into training and test. (Its text also says 40 % to 60 %, which contradicts that.)

    Args:
        bank_dir: of a `NoduleBank` or a `SliceBank`.
        layer: which of the two: ``nodules`` or ``healthy_slices``.
        image_size: S of the square images.
        window: HU range of [-1, 1], a preset's name or [lower, upper].
        preprocessing: see `prepare_images`; None or empty for `bank_preprocessing`.
        fallback: classes of a bank without categories, see `classes_of`.
        augmentation: random MONAI dictionary transforms of the training images.
        augment: whether they are used, see `common.data.transforms.choose_augmentation`.
        turned: whether training shows all eight orientations, in which copies are looked for then; None:
            where the augmentation has ``RandRotate90d``.
        seed: the run's seed (augmentation).
        split_seed: of the split.
        trained: facts of the model that is used: its own split is taken, see
            `common.data.splits.split_samples`.

    Attributes:
        classes: the classes of the images.
        class_names: their names; empty where there are no classes.
            indices: of each part's images in the bank.
    Raises:
        UserError: there is no bank, or it cannot be split.

    Example:
        >>> from tempfile import mkdtemp
        >>> records = [NoduleRecord(f"n{k}", f"patient_{k}", "", 8.0, 1.25) for k in range(10)]
        >>> arrays = np.zeros((10, 16, 16), np.int16), np.zeros((10, 16, 16), np.uint8)
        >>> data = BankData(NoduleBank(*arrays, records).save(mkdtemp()), "nodules", image_size=16)
        >>> len(data.train), data.train[0]["image"].shape
        (8, torch.Size([2, 16, 16]))
    """

    def __init__(
        self,
        bank_dir: str | os.PathLike[str],
        layer: str,
        image_size: int,
        window: str | Window | Sequence[float] = "lung",
        preprocessing: Transforms = None,
        fallback: str = "none",
        augmentation: Transforms = None,
        augment: str | None = "light",
        turned: bool | None = None,
        seed: int = 0,
        split_seed: int = 0,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset_dir, self.window, self.image_size = Path(bank_dir), window_by_name(window), image_size
        self.layer, self.preprocessing = layer, preprocessing or bank_preprocessing(image_size, self.window)
        bank = load_bank(bank_dir, layer)
        self.records, images = bank.records, prepare_images(bank, self.preprocessing)
        self.channels = images.shape[1]
        samples = [Sample(Path(r.name), None, r.patient) for r in self.records]
        first = self.split_by(samples, FRACTIONS, split_seed, trained=trained)
        part_of = {sample.name: part for part, chosen in first.items() for sample in chosen}
        self.indices = {
            part: [n for n, sample in enumerate(samples) if part_of.get(sample.name) == part]
            for part in first
        }
        self.classes: Classes = classes_of(self.records, self.indices["train"], fallback)
        self.class_names = self.classes.names
        labelled = self._samples(self.records)
        self.splits = {part: [labelled[n] for n in chosen] for part, chosen in self.indices.items()}
        used = choose_augmentation(augment, augmentation, len(self.indices["train"]))  # type: ignore[arg-type]
        if turned is None:
            turned = find_transform(used, RandRotate90d) is not None
        training = {"augmentation": used, "seed": seed, "turned": turned}
        self.datasets = {
            part: BankImages(
                images[chosen],
                self.splits[part],
                self.class_names,
                **(training if part == "train" else {}),  # type: ignore[arg-type]
            )
            for part, chosen in self.indices.items()
        }
        logger.info(self.summary())

    @classmethod
    def of_model(
        cls, info: Mapping[str, Any], bank_dir: str | os.PathLike[str], layer: str, split_seed: int
    ) -> BankData:
        """A bank prepared and split as for the training that left the facts ``info``."""
        return cls(
            bank_dir,
            layer,
            int(info["image_size"]),
            info["window_hu"],
            recorded_transforms(info),
            turned=bool(info.get("turned", layer == NODULES)),
            split_seed=split_seed,
            trained=info,
        )

    def other_bank(self, bank_dir: str | os.PathLike[str]) -> BankImages:
        """All images of a bank of other patients, prepared as this one.

        Raises:
            UserError: there is no bank, or a training patient is in it.
        """
        bank = load_bank(bank_dir, self.layer)
        samples = self._samples(bank.records)
        self.refuse_training_patients(samples, bank_dir)
        return BankImages(prepare_images(bank, self.preprocessing), samples, self.class_names)

    def _samples(self, records: Sequence[Record]) -> list[Sample]:
        return [Sample(Path(r.name), None, r.patient, category=self.classes.name_of(r)) for r in records]

    def summary(self) -> str:
        """One line: images and patients of each split, and how many of each class."""
        counts = self.counts().replace("slices", "images")
        classes = ", ".join(f"{count} {name}" for name, count in self.train.counts().items())
        return f"{self.dataset_dir}: {counts}" + (f"; train has {classes}" if classes else "")

    def metadata(self) -> dict[str, Any]:
        """The facts stored with a model, as plain JSON: window, classes, sizes, patients."""
        records = self.records
        return {
            "layer": self.layer,
            "window_hu": [self.window.lower, self.window.upper],
            "nominal_hu": any(getattr(record, "nominal_hu", False) for record in records),
            "value_range": [-1.0, 1.0],
            "image_size": self.image_size,
            "spacing_mm": float(np.median([records[n].spacing_mm for n in self.indices["train"]])),
            "turned": self.train.turned,
            **self.classes.metadata(),
            **self.split_facts(),
            "images": {name: len(part) for name, part in self.datasets.items()},
        }


def load_bank(bank_dir: str | os.PathLike[str], layer: str) -> NoduleBank | SliceBank:
    """Loads the bank of a layer.

    Raises:
        UserError: there is no bank, or no such layer.
    """
    if layer not in LAYERS:
        raise UserError(f"layer {layer!r} is unknown; choose {' or '.join(LAYERS)}")
    if not (Path(bank_dir) / RECORDS).is_file():
        raise UserError(f"{bank_dir}: no bank of {layer} here; make it: {EXTRACTION}")
    return NoduleBank.load(bank_dir) if layer == NODULES else SliceBank.load(bank_dir)


def turn(image: np.ndarray, number: int) -> np.ndarray:
    """One of the eight flips and rotations of an image (C, S, S)."""
    way = list(ORIENTATIONS.values())[number]
    return np.ascontiguousarray(np.moveaxis(way(np.moveaxis(image, 0, -1)), -1, 0))

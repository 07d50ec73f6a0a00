"""Slices with their nodules in memory: what a diagnosis learns from, real and made ones alike."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.enhancement.data import refuse_shared_patients, to_images
from bundles.lung_two_stage.enhancement.enhance import load_enhancer
from common.data import splits
from common.data.intensity import Window, window_by_name
from common.data.sampler import SampleIndex
from common.data.splits import KeptSplit
from common.data.transforms import Augmentation, apply_to_image, apply_to_mask
from common.errors import UserError
from common.files import read_json
from common.rng import make_rng

NODULE, CATEGORY, JOINT = "nodule", "category", "joint"
TASKS = (NODULE, CATEGORY, JOINT)
"""What a slice's class is: whether it has a nodule (0 or 1); the category of those that have one; or both: 0
for none, else the category's number + 1."""


@dataclass(frozen=True)
class Slices:
    """Some slices.

    Args:
        images: (N, 1, H, W) float32 in [-1, 1].
        nodules: (N, H, W) uint8: the category's number + 1, or 1 without categories; 0 none.
        patients: N; empty for slices of nobody.
    """

    images: Tensor
    nodules: NDArray[np.uint8]
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def has_nodule(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.asarray((self.nodules > 0).any((1, 2)))

    @property
    def category(self) -> NDArray[np.int64]:
        """(N,) the number of the category with most pixels; -1 for slices without a nodule."""
        highest = int(self.nodules.max(initial=0))
        areas = np.stack(
            [(self.nodules == k).sum((1, 2)) for k in range(1, highest + 1)] or [[0] * len(self)]
        )
        return np.where(self.has_nodule, areas.argmax(0), -1)

    def at(self, places: Sequence[int] | NDArray) -> Slices:
        """The slices at these places, in this order; places may repeat."""
        chosen = np.asarray(places, np.int64)
        return Slices(self.images[chosen], self.nodules[chosen], [self.patients[k] for k in chosen])

    def beside(self, other: Slices) -> Slices:
        """These slices and then the others."""
        return Slices(
            torch.cat([self.images, other.images]),
            np.concatenate([self.nodules, other.nodules]),
            [*self.patients, *other.patients],
        )


def of_bank(bank: SliceBank, window: Window) -> Slices:
    """All slices of a bank."""
    patients = [record.patient for record in bank.records]
    return Slices(to_images(np.asarray(bank.hu), window), np.asarray(bank.nodules), patients)


def of_composites(folder: str | os.PathLike[str], window: Window, most: int, seed: int = 0) -> Slices:
    """Composites, ``most`` drawn of all.

    Raises:
        UserError: the shards are not finished.
    """
    composites = Composites(folder)
    drawn = make_rng(seed, "diagnosis", "composites").permutation(len(composites))[:most]
    chosen = [composites[int(number)] for number in sorted(drawn)]
    images = to_images(np.stack([composite.image for composite in chosen]), window)
    return Slices(images, np.stack([composite.mask for composite in chosen]), [""] * len(chosen))


class SliceItems(Dataset[dict[str, Any]]):
    """Slices as training takes them. A `SampleIndex` is augmented, a plain number is not.

    Items hold ``image`` (1, H, W) in [-1, 1], ``label``, its nodules (1, H, W) in {0, 1}, ``class``, see
    `TASKS`, and ``sample``.

    Args:
        slices: of the task category only those with a nodule are kept.
        task: see `TASKS`.
        augment: of the draws.
        seed: of the draws.
    Raises:
        UserError: an unknown task, or no slice that fits it.
    """

    def __init__(
        self, slices: Slices, task: str = NODULE, augment: Augmentation | None = None, seed: int = 0
    ) -> None:
        if task not in TASKS:
            raise UserError(f"task {task!r} is unknown; choose {' or '.join(TASKS)}")
        self.slices = slices.at(np.flatnonzero(slices.has_nodule)) if task == CATEGORY else slices
        if not len(self.slices):
            raise UserError(f"task {task}: none of the {len(slices)} slices has a nodule")
        self.classes = classes_of(self.slices, task)
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        place = visit.index if isinstance(visit, SampleIndex) else int(visit)
        if place >= len(self):
            raise IndexError(place)
        image, mask = self.slices.images[place, 0].numpy(), self.slices.nodules[place] > 0
        if isinstance(visit, SampleIndex) and self.augment is not None:
            drawn = self.augment.draw(make_rng(self.seed, "diagnosis", visit.epoch, visit.index))
            image = apply_to_image((image + 1) / 2, drawn) * 2 - 1
            mask = apply_to_mask(mask, drawn)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image, np.float32))[None],
            "label": torch.from_numpy(mask.astype(np.float32))[None],
            "class": int(self.classes[place]),
            "sample": place,
        }


def classes_of(slices: Slices, task: str) -> NDArray[np.int64]:
    """The class of each slice (N,), see `TASKS`."""
    if task == NODULE:
        return slices.has_nodule.astype(np.int64)
    return slices.category + (task == JOINT)


def enhanced_slices(slices: Slices, network: Callable[[Tensor], Tensor] | None) -> Slices:
    """The same slices after the enhancer, or as they are without one: what composites are made of must go
    the composites' way, or a diagnosis learns to tell the enhancer's traces from none."""
    if network is None:
        return slices
    with torch.inference_mode():
        images = torch.cat([network(batch) for batch in slices.images.split(16)])
    return Slices(images.clone(), slices.nodules, slices.patients)


REAL, OVERSAMPLED, SYNTHETIC, BOTH = "real", "oversampled", "synthetic", "both"
REGIMES = (REAL, OVERSAMPLED, SYNTHETIC, BOTH)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """The sets that a diagnosis is trained with and tested on.

    Args:
        real: slices of training patients, imbalanced: few have a nodule.
        synthetic: composites, and slices without nodules that went the same way; half of each.
        validation: real slices of other training patients, to choose a model by.
        test: real slices of patients that nothing else has seen.
    """

    real: Slices
    synthetic: Slices
    validation: Slices
    test: Slices

    def training(self, regime: str) -> Slices:
        """The training set of a regime.

        ``real``: as it is, imbalanced. ``oversampled``: its positives repeated until they are half. Both
        stand for doing without synthesis. ``synthetic``: nothing real. ``both``: real and synthetic ones
        together. Synthetic slices are with nodules and without in equal shares, so that being synthetic says
        nothing of the class.

        Raises:
            UserError: no such regime.
        """
        first, *others = self.parts(regime)
        return first.beside(others[0]) if others else first

    def parts(self, regime: str) -> list[Slices]:
        """The sets that make up `training`, of which each batch of a comparison holds equal shares.

        Raises:
            UserError: no such regime.
        """
        if regime == REAL:
            return [self.real]
        if regime == SYNTHETIC:
            return [self.synthetic]
        if regime == BOTH:
            return [self.real, self.synthetic]
        if regime != OVERSAMPLED:
            raise UserError(f"regime {regime!r} is unknown; choose of {', '.join(REGIMES)}")
        positive = np.flatnonzero(self.real.has_nodule)
        lacking = max(0, len(self.real) - 2 * len(positive))
        return [self.real.beside(self.real.at(np.resize(positive, lacking)))]

    def summary(self) -> str:
        """One line of counts."""
        parts = {"real": self.real, "synthetic": self.synthetic, "val": self.validation, "test": self.test}
        return "; ".join(
            f"{n} {len(s)} slices, {int(s.has_nodule.sum())} with nodules" for n, s in parts.items()
        )


def read_sources(
    extraction_dir: str | os.PathLike[str],
    synthetic_dir: str | os.PathLike[str],
    bases_dir: str | os.PathLike[str],
    window: str | Window | Sequence[float] = "lung",
    enhancer_path: str | os.PathLike[str] | None = None,
    positives: int = 8,
    synthetic: int = 400,
    held_out: float = 0.2,
    seed: int = 0,
) -> Sources:
    """Reads the sets from the stages' results.

    Args:
        extraction_dir: with the banks ``others``, ``healthy_slices`` and ``tests``.
        synthetic_dir: enhanced composites.
        bases_dir: bank of the slices without nodules that the composites were made on.
        enhancer_path: the model that made them, for those slices; as they are without one.
        positives: real slices with nodules to learn from; the fewer, the larger the imbalance.
        synthetic: synthetic slices, half of them with nodules.
        held_out: share of the real training slices' patients for validation.
        seed: of what is drawn.
    Raises:
        UserError: a bank is missing or has no nodules, or a test patient is a training patient too.
    """
    folder, limits = Path(extraction_dir), window_by_name(window)
    others, healthy_slices, tests = (
        SliceBank.load(folder / name) for name in ("others", "healthy_slices", "tests")
    )
    used = [folder / "others", folder / "healthy_slices", folder / "nodules"]
    refuse_shared_patients(tests.records, folder / "tests", used)
    train, validation = _by_patient(of_bank(others, limits), held_out, seed)
    real = _imbalanced(train.beside(of_bank(healthy_slices, limits)), positives, seed)
    composites = of_composites(synthetic_dir, limits, synthetic // 2, seed)
    bases = of_bank(SliceBank.load(bases_dir), limits)
    drawn = make_rng(seed, "diagnosis", "bases").permutation(len(bases))
    enhancer = None if enhancer_path is None else load_enhancer(enhancer_path)
    empty = enhanced_slices(bases.at(drawn[: len(composites)]), enhancer)
    made = composites.beside(empty.at(np.resize(np.arange(len(empty)), len(composites))))
    sources = Sources(real, made, validation, of_bank(tests, limits))
    for name, part in {"others": real, "tests": sources.test}.items():
        if not part.has_nodule.any() or part.has_nodule.all():
            raise UserError(f"{folder / name}: slices with nodules and without are needed; extract more")
    logger.info(sources.summary())
    return sources


def _by_patient(slices: Slices, held_out: float, seed: int) -> tuple[Slices, Slices]:
    """A part to train and a part to validate with; at least one patient each."""
    kept = set(splits.held_out(slices.patients, held_out, seed, "diagnosis"))
    inside = np.array([patient in kept for patient in slices.patients])
    return slices.at(np.flatnonzero(~inside)), slices.at(np.flatnonzero(inside))


def _imbalanced(slices: Slices, positives: int, seed: int) -> Slices:
    """All slices without nodules, and ``positives`` drawn ones with."""
    has = np.flatnonzero(slices.has_nodule)
    drawn = make_rng(seed, "diagnosis", "positives").permutation(has)[: max(int(positives), 1)]
    return slices.at(np.sort(np.concatenate([np.flatnonzero(~slices.has_nodule), drawn])))


NO_NODULE, SOME_NODULE = "none", "nodule"


class DiagnosisData(KeptSplit):
    """Slices for a classifier.

    Args:
        sources: see `bundles.lung_two_stage.downstream.data.read_sources`.
        regime: what is learned from, see `bundles.lung_two_stage.downstream.data.REGIMES`.
        task: see `bundles.lung_two_stage.downstream.data.TASKS`.
        categories: their names; empty where there are none.
        window: of the images.
        augment: settings of `Augmentation` for the training set.
        seed: the run's seed.

    Attributes:
        train, val: items.
        class_names: what the classifier tells apart.
    Raises:
        UserError: a task of categories without any.
    """

    def __init__(
        self,
        sources: Sources,
        regime: str = BOTH,
        task: str = NODULE,
        categories: Sequence[str] = (),
        window: str | Window | Sequence[float] = "lung",
        augment: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        task = NODULE if task == JOINT and not categories else task
        self.sources, self.regime, self.task = sources, regime, task
        self.window = window_by_name(window)
        self.class_names = class_names(task, categories)
        drawn = Augmentation(**augment) if augment is not None else None
        self.train = SliceItems(sources.training(regime), task, drawn, seed)
        self.val = SliceItems(sources.validation, task)
        highest = max(int(items.classes.max()) for items in (self.train, self.val))
        if highest >= len(self.class_names):
            raise UserError(
                f"slices of class {highest}, but the classes are {', '.join(self.class_names)}; "
                "run the extraction and the composition again"
            )

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained classifier, as plain JSON."""
        parts = {"train": self.train.slices, "val": self.val.slices}
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "value_range": [-1.0, 1.0],
            "image_size": list(self.train.slices.images.shape[2:]),
            "task": self.task,
            "regime": self.regime,
            "classes": self.class_names,
            "splits": {name: sorted(set(part.patients) - {""}) for name, part in parts.items()},
            "slices": {name: len(part) for name, part in parts.items()},
        }


def class_names(task: str, categories: Sequence[str]) -> list[str]:
    """The names of a task's classes, in order.

    Raises:
        UserError: categories are asked for where there is none, or one only.
    """
    if task == NODULE:
        return [NO_NODULE, SOME_NODULE]
    if task == CATEGORY and len(categories) < 2:
        raise UserError(
            f"task category: the nodules have {len(categories)} categories; at least 2 are needed"
        )
    return list(categories) if task == CATEGORY else [NO_NODULE, *categories]


def known_categories(extraction_dir: str | os.PathLike[str]) -> list[str]:
    """The names of the nodules' categories, as the extraction reports them; none where it has no report."""
    path = Path(extraction_dir) / "extraction.json"
    return list(read_json(path).get("categories", [])) if path.is_file() else []


def image_to_class(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: images (B, 1, H, W) in, their classes (B,) as target."""
    image, target = batch["image"], torch.as_tensor(batch["class"])
    return image.to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)

"""Real and synthetic slices with their nodules, the training data of a diagnosis."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
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
from bundles.lung_two_stage.enhancement.data import check_no_shared_patients
from bundles.lung_two_stage.enhancement.enhance import load_enhancer
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data import splits
from common.data.intensity import Window, window_by_name
from common.data.loaders import SampleIndex
from common.data.replay import ReplayTransforms, Transforms
from common.data.splits import KeptSplit
from common.errors import UserError
from common.files import read_json
from common.rng import make_rng

NODULE, CATEGORY, JOINT = "nodule", "category", "joint"
TASKS = (NODULE, CATEGORY, JOINT)
"""The class of a slice: nodule, 1 with a nodule and 0 without; category, the number of the nodule's category;
joint, 0 without a nodule, else the category's number + 1."""
REAL, OVERSAMPLED, SYNTHETIC, BOTH = "real", "oversampled", "synthetic", "both"
REGIMES = (REAL, OVERSAMPLED, SYNTHETIC, BOTH)
"""Training sets that are compared, see `Sources.parts`."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slices:
    """Slices in memory.

    Args:
        images: (N, 1, H, W) float32 in [-1, 1].
        nodules: (N, H, W) uint8: the category's number + 1, or 1 without categories; 0 outside nodules.
        patients: N; empty strings for synthetic slices.
    """

    images: Tensor
    nodules: NDArray[np.uint8]
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def has_nodule(self) -> NDArray[np.bool_]:
        """Whether each slice has a nodule, (N,)."""
        return np.asarray((self.nodules > 0).any((1, 2)))

    @property
    def category(self) -> NDArray[np.int64]:
        """The number of the category with most pixels, (N,); -1 for slices without a nodule."""
        highest = int(self.nodules.max(initial=0))
        areas = np.stack(
            [(self.nodules == k).sum((1, 2)) for k in range(1, highest + 1)] or [[0] * len(self)]
        )
        return np.where(self.has_nodule, areas.argmax(0), -1)

    def subset(self, indices: Sequence[int] | NDArray) -> Slices:
        """The slices at these indices, which may repeat, in this order."""
        chosen = np.asarray(indices, np.int64)
        return Slices(self.images[chosen], self.nodules[chosen], [self.patients[k] for k in chosen])

    def concatenate(self, other: Slices) -> Slices:
        """These slices followed by the others."""
        return Slices(
            torch.cat([self.images, other.images]),
            np.concatenate([self.nodules, other.nodules]),
            [*self.patients, *other.patients],
        )


def bank_slices(bank: SliceBank, window: Window) -> Slices:
    """All slices of a bank, in the window's gray values."""
    patients = [record.patient for record in bank.records]
    return Slices(network_input(np.asarray(bank.hu), window), np.asarray(bank.nodules), patients)


def composite_slices(folder: str | os.PathLike[str], window: Window, most: int, seed: int = 0) -> Slices:
    """At most ``most`` composites of a folder of shards, drawn by ``seed``.

    Raises:
        UserError: the shards are not finished.
    """
    composites = Composites(folder)
    drawn = make_rng(seed, "diagnosis", "composites").permutation(len(composites))[:most]
    chosen = [composites[int(number)] for number in sorted(drawn)]
    images = network_input(np.stack([composite.image for composite in chosen]), window)
    return Slices(images, np.stack([composite.mask for composite in chosen]), [""] * len(chosen))


class SliceItems(Dataset[dict[str, Any]]):
    """Slices as training items: indexed by a `SampleIndex` they are augmented, by an int they are not.

    Items hold ``image`` (1, H, W) in [-1, 1], ``label``, its nodules (1, H, W) in {0, 1}, ``class``, see
    `TASKS`, and ``sample``.

    Args:
        slices: for the task category, those without a nodule are left out.
        task: see `TASKS`.
        augmentation: random MONAI dictionary transforms of ``image`` and ``label``; None for none.
        seed: of the augmentation.
    Raises:
        UserError: an unknown task, or no slice with a nodule for the task category.
    """

    def __init__(
        self, slices: Slices, task: str = NODULE, augmentation: Transforms = None, seed: int = 0
    ) -> None:
        if task not in TASKS:
            raise UserError(f"task {task!r} is unknown; choose {' or '.join(TASKS)}")
        self.slices = slices.subset(np.flatnonzero(slices.has_nodule)) if task == CATEGORY else slices
        if not len(self.slices):
            raise UserError(f"task {task}: none of the {len(slices)} slices has a nodule")
        self.classes = classes_of(self.slices, task)
        self.augmentation = ReplayTransforms(augmentation, seed)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: SampleIndex | int) -> dict[str, Any]:
        number = index.index if isinstance(index, SampleIndex) else int(index)
        if number >= len(self):
            raise IndexError(number)
        item = {
            "image": self.slices.images[number],
            "label": torch.from_numpy((self.slices.nodules[number] > 0).astype(np.float32))[None],
            "class": int(self.classes[number]),
            "sample": number,
        }
        return self.augmentation(item, index)


def classes_of(slices: Slices, task: str) -> NDArray[np.int64]:
    """The classes of slices (N,), see `TASKS`."""
    if task == NODULE:
        return slices.has_nodule.astype(np.int64)
    return slices.category + (task == JOINT)


def enhanced_slices(slices: Slices, network: Callable[[Tensor], Tensor] | None) -> Slices:
    """The slices after the enhancer, if there is one.

    The healthy slices below composites need it too, or a diagnosis learns to see the enhancer's traces.
    """
    if network is None:
        return slices
    with torch.inference_mode():
        images = torch.cat([network(batch) for batch in slices.images.split(16)])
    return Slices(images.clone(), slices.nodules, slices.patients)


@dataclass(frozen=True)
class Sources:
    """The sets that a diagnosis is trained with and tested on.

    Args:
        real: slices of training patients, imbalanced: few have a nodule.
        synthetic: half composites, half healthy slices that were enhanced like them.
        validation: real slices of other training patients, to choose a model.
        test: real slices of test patients.
    """

    real: Slices
    synthetic: Slices
    validation: Slices
    test: Slices

    def training(self, regime: str) -> Slices:
        """The training set of a regime: its `parts` together.

        Raises:
            UserError: an unknown regime.
        """
        first, *others = self.parts(regime)
        return first.concatenate(others[0]) if others else first

    def parts(self, regime: str) -> list[Slices]:
        """The sets of a regime, of which each batch of a comparison holds equal shares.

        ``real``: as it is, imbalanced. ``oversampled``: its slices with nodules are repeated until they are
        half. ``synthetic``: no real slices. ``both``: real and synthetic ones. Half of the synthetic slices
        have a nodule, so that being synthetic says nothing about the class.

        Raises:
            UserError: an unknown regime.
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
        return [self.real.concatenate(self.real.subset(np.resize(positive, lacking)))]

    def summary(self) -> str:
        """One line with the number of slices of each set."""
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
    """Reads the sets from the results of the earlier stages.

    Args:
        extraction_dir: with the banks ``others``, ``healthy_slices`` and ``tests``.
        synthetic_dir: enhanced composites.
        bases_dir: bank of the healthy slices below the composites.
        enhancer_path: the enhancer of the composites, for these slices; None leaves them as they are.
        positives: real training slices with nodules; the fewer, the larger the imbalance.
        synthetic: synthetic slices, half of them with nodules.
        held_out: share of the real training slices' patients for validation.
        seed: of all draws.
    Raises:
        UserError: a bank is missing or lacks nodules, or a test patient is among the training patients.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceRecord
        >>> from bundles.lung_two_stage.composition.compose import ComposeSettings, compose
        >>> lung, alpha = np.ones((8, 32, 32), np.uint8), np.full((1, 8, 8), 255, np.uint8)
        >>> mask = np.pad(np.ones((4, 8, 8), np.uint8), ((0, 4), (12, 12), (12, 12)))  # of the first four
        >>> records = [SliceRecord(f"slice_{k}", f"patient_{k}", 1.0) for k in range(8)]
        >>> slices = SliceBank(np.int16(lung) * -850, lung, mask, records)
        >>> nodule = NoduleBank(np.int16(alpha), alpha, [NoduleRecord("n", "patient_5", "", 8.0, 1.0)])
        >>> with TemporaryDirectory() as work:
        ...     parts = {"others": [0, 1, 2, 4], "healthy_slices": [5, 6], "tests": [3, 7]}
        ...     for name, chosen in parts.items():
        ...         _ = slices.take(chosen).save(f"{work}/{name}")
        ...     banks = str(nodule.save(f"{work}/nodules")), f"{work}/healthy_slices"
        ...     compose(ComposeSettings(*banks, f"{work}/composites", count=6))
        ...     read_sources(work, f"{work}/composites", banks[1]).summary()  # doctest: +ELLIPSIS
        6 of ...
        'real ...; synthetic 12 slices, 6 with nodules; val 1 slices, ...; test 2 slices, 1 with nodules'
    """
    folder, limits = Path(extraction_dir), window_by_name(window)
    others, healthy_slices, tests = (
        SliceBank.load(folder / name) for name in ("others", "healthy_slices", "tests")
    )
    used = [folder / "others", folder / "healthy_slices", folder / "nodules"]
    check_no_shared_patients(tests.records, folder / "tests", used)
    train, validation = _by_patient(bank_slices(others, limits), held_out, seed)
    real = _imbalanced(train.concatenate(bank_slices(healthy_slices, limits)), positives, seed)
    composites = composite_slices(synthetic_dir, limits, synthetic // 2, seed)
    bases = bank_slices(SliceBank.load(bases_dir), limits)
    drawn = make_rng(seed, "diagnosis", "bases").permutation(len(bases))
    enhancer = None if enhancer_path is None else load_enhancer(enhancer_path)
    empty = enhanced_slices(bases.subset(drawn[: len(composites)]), enhancer)
    halves = composites.concatenate(empty.subset(np.resize(np.arange(len(empty)), len(composites))))
    sources = Sources(real, halves, validation, bank_slices(tests, limits))
    for name, part in {"others": real, "tests": sources.test}.items():
        if not part.has_nodule.any() or part.has_nodule.all():
            raise UserError(f"{folder / name}: slices with nodules and without are needed; extract more")
    logger.info(sources.summary())
    return sources


def _by_patient(slices: Slices, held_out: float, seed: int) -> tuple[Slices, Slices]:
    """Splits slices into training and validation by patient, at least one patient each."""
    kept = set(splits.held_out(slices.patients, held_out, seed, "diagnosis"))
    inside = np.array([patient in kept for patient in slices.patients])
    return slices.subset(np.flatnonzero(~inside)), slices.subset(np.flatnonzero(inside))


def _imbalanced(slices: Slices, positives: int, seed: int) -> Slices:
    """All slices without nodules, and ``positives`` drawn ones with nodules."""
    has = np.flatnonzero(slices.has_nodule)
    drawn = make_rng(seed, "diagnosis", "positives").permutation(has)[: max(int(positives), 1)]
    return slices.subset(np.sort(np.concatenate([np.flatnonzero(~slices.has_nodule), drawn])))


NO_NODULE, SOME_NODULE = "none", "nodule"


class DiagnosisData(KeptSplit):
    """Training and validation data of a slice classifier.

    Args:
        sources: see `read_sources`.
        regime: the training set, see `Sources.parts`.
        task: see `TASKS`; joint becomes nodule where there are no categories.
        categories: names of the nodules' categories; empty where there are none.
        window: of the images.
        augmentation: random MONAI dictionary transforms of the training set; None for none.
        seed: the run's seed.

    Attributes:
        train, val: `SliceItems`.
        class_names: the classes of the classifier.
    Raises:
        UserError: the task category with fewer than two categories.

    Example:
        >>> def slices(*patients):
        ...     nodules = np.zeros((len(patients), 8, 8), np.uint8)
        ...     nodules[::2, 2:4, 2:4] = 1
        ...     return Slices(torch.zeros(len(patients), 1, 8, 8), nodules, patients)
        >>> sources = Sources(slices("a", "b"), slices("", ""), slices("c"), slices("d"))
        >>> data = DiagnosisData(sources, regime="both")
        >>> len(data.train), data.class_names
        (4, ['none', 'nodule'])
    """

    def __init__(
        self,
        sources: Sources,
        regime: str = BOTH,
        task: str = NODULE,
        categories: Sequence[str] = (),
        window: str | Window | Sequence[float] = "lung",
        augmentation: Transforms = None,
        seed: int = 0,
    ) -> None:
        task = NODULE if task == JOINT and not categories else task
        self.sources, self.regime, self.task = sources, regime, task
        self.window = window_by_name(window)
        self.class_names = class_names(task, categories)
        self.train = SliceItems(sources.training(regime), task, augmentation, seed)
        self.val = SliceItems(sources.validation, task)
        highest = max(int(items.classes.max()) for items in (self.train, self.val))
        if highest >= len(self.class_names):
            raise UserError(
                f"slices of class {highest}, but the classes are {', '.join(self.class_names)}; "
                "run the extraction and the composition again"
            )

    def metadata(self) -> dict[str, Any]:
        """The facts stored with a trained classifier, as plain JSON."""
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
        UserError: the task category with fewer than two categories.

    Example:
        >>> class_names("joint", ["solid", "part_solid"])
        ['none', 'solid', 'part_solid']
    """
    if task == NODULE:
        return [NO_NODULE, SOME_NODULE]
    if task == CATEGORY and len(categories) < 2:
        raise UserError(
            f"task category: the nodules have {len(categories)} categories; at least 2 are needed"
        )
    return list(categories) if task == CATEGORY else [NO_NODULE, *categories]


def known_categories(extraction_dir: str | os.PathLike[str]) -> list[str]:
    """The names of the nodules' categories in the extraction's report; none without a report.

    Example:
        >>> known_categories("no such folder")
        []
    """
    path = Path(extraction_dir) / "extraction.json"
    return list(read_json(path).get("categories", [])) if path.is_file() else []


def slice_side(extraction_dir: str | os.PathLike[str]) -> int:
    """The side of the test slices in pixels; the augmentation's shifts are shares of it.

    Example:
        >>> from tempfile import mkdtemp
        >>> from bundles.lung_two_stage.banks import SliceRecord
        >>> folder, lung = Path(mkdtemp()), np.ones((1, 64, 64), np.uint8)
        >>> bank = SliceBank(lung.astype(np.int16), lung, 0 * lung, [SliceRecord("a", "p", 1.0)])
        >>> _ = bank.save(folder / "tests")
        >>> slice_side(folder)
        64
    """
    return int(SliceBank.load(Path(extraction_dir) / "tests").hu.shape[-1])

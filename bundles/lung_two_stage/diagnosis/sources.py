"""What the diagnosis may learn from: few real positives, many real negatives, and what was synthesised."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.diagnosis.slices import Slices, enhanced_slices, of_bank, of_composites
from bundles.lung_two_stage.enhancement.apart import refuse_shared_patients
from bundles.lung_two_stage.enhancement.loading import load_enhancer
from common.data import splits
from common.data.intensity import Window, window_by_name
from common.errors import UserError
from common.random import generator

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
        extraction_dir: with the banks ``others``, ``normals`` and ``tests``.
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
    others, normals, tests = (SliceBank.load(folder / name) for name in ("others", "normals", "tests"))
    used = [folder / "others", folder / "normals", folder / "nodules"]
    refuse_shared_patients(tests.records, folder / "tests", used)
    train, validation = _by_patient(of_bank(others, limits), held_out, seed)
    real = _imbalanced(train.beside(of_bank(normals, limits)), positives, seed)
    composites = of_composites(synthetic_dir, limits, synthetic // 2, seed)
    bases = of_bank(SliceBank.load(bases_dir), limits)
    drawn = generator(seed, "diagnosis", "bases").permutation(len(bases))
    size = (bases.images.shape[2], bases.images.shape[3])
    enhancer = None if enhancer_path is None else load_enhancer(enhancer_path, size)
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
    drawn = generator(seed, "diagnosis", "positives").permutation(has)[: max(int(positives), 1)]
    return slices.at(np.sort(np.concatenate([np.flatnonzero(~slices.has_nodule), drawn])))

"""Training data of the enhancer: composites from their shards and real slices of other patients."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundles.lung_two_stage.banks import RECORDS, SliceBank, SliceRecord
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data import splits
from common.data.datasets import UnpairedDataset
from common.data.intensity import Window, from_network, window_by_name
from common.data.replay import Transforms
from common.data.splits import KeptSplit
from common.errors import UserError
from common.files import read_json
from common.rng import make_rng

logger = logging.getLogger(__name__)


def check_no_shared_patients(
    slices: Sequence[SliceRecord],
    folder: str | os.PathLike[str],
    used: Iterable[str | os.PathLike[str]],
) -> None:
    """Checks that no slice is of a patient in the banks ``used``.

    Args:
        slices: records of real slices, of the bank ``folder``.
        used: folders of the banks that composites were made of: nodules, healthy slices.
    Raises:
        UserError: names the patient; or a slice has no patient, or a bank is missing.
    """
    nameless = next((record.name for record in slices if not record.patient), None)
    if nameless is not None:
        raise UserError(f"{folder}: slice {nameless} names no patient; it may be one of the training set")
    patients = {record.patient for record in slices}
    for bank in map(Path, used):
        shared = patients & patients_of(bank)
        if shared:
            raise UserError(
                f"{folder}: patient {min(shared)} is in {bank} too; real slices must be of other patients "
                "than what was generated from, run the extraction again with other splits"
            )


def patients_of(bank: Path) -> set[str]:
    """Reads the patients of a bank of nodules or slices, not its images.

    Raises:
        UserError: there is no bank.
    """
    path = bank / RECORDS
    if not path.is_file():
        raise UserError(f"{bank}: no bank here; run the stage that makes it")
    return {entry["patient"] for entry in read_json(path)} - {""}


def to_changed_hu(images: Tensor, before: NDArray[np.int16], window: Window) -> NDArray[np.int16]:
    """Maps enhanced images (N, 1, H, W) in [-1, 1] to HU (N, H, W) int16.

    What the network's input had outside of the window (bone, air around the patient) is added again, so that
    an unchanged image comes back as it was.

    Args:
        before: HU (N, H, W) of the network's input.
    """
    inside = np.clip(before.astype(np.float32), window.lower, window.upper)
    unit = from_network(images[:, 0].float().cpu().numpy())
    hu = unit.astype(np.float64) * window.width + window.lower + (before - inside)
    return np.rint(hu).clip(-32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class CompositeItems:
    """Composites, read on access.

    Items hold ``label``, the composite (1, H, W) in [-1, 1], ``mask``, its nodules (1, H, W) in {0, 1}, and
    ``sample``.
    """

    composites: Composites
    numbers: Sequence[int]
    window: Window

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, mask, _ = self.composites[int(self.numbers[index])]
        nodules = torch.from_numpy((mask > 0).astype(np.float32))[None]
        return {"label": network_input(image[None], self.window)[0], "mask": nodules, "sample": index}


@dataclass(frozen=True)
class RealItems:
    """Real slices. Items hold ``image`` (1, H, W) in [-1, 1] and ``sample``."""

    hu: NDArray[np.int16]
    window: Window

    def __len__(self) -> int:
        return len(self.hu)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": network_input(self.hu[index][None], self.window)[0], "sample": index}


class EnhancerData(KeptSplit):
    """Composites and real slices, both split into training and validation (real slices by patient).

    Args:
        composites_dir: finished shards of the composition.
        real_dir: bank of real slices.
        used_dirs: banks that the composites were made of; their patients must not be in ``real_dir``.
        window: HU range of [-1, 1].
        most: composites to use, drawn at random; null for all.
        held_out: share for validation.
        seed: of the pairing of composites and real slices, and of the augmentation.
        augmentation: random MONAI dictionary transforms of training items: ``label`` and ``mask`` (together),
            ``image``.

    Attributes:
        train, val: unpaired datasets.
        patients: of the real slices, by part.
    Raises:
        UserError: too few images, a shared patient, or images of two sizes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
        >>> from bundles.lung_two_stage.composition.compose import ComposeSettings, compose
        >>> lung, alpha = np.ones((7, 32, 32), np.uint8), np.full((1, 8, 8), 255, np.uint8)
        >>> records = [SliceRecord(f"slice_{k}", f"patient_{k}", 1.0) for k in range(7)]
        >>> slices = SliceBank(np.int16(lung) * -850, lung, 0 * lung, records)
        >>> nodule = NoduleBank(np.int16(alpha), alpha, [NoduleRecord("n", "patient_0", "", 8.0, 1.0)])
        >>> with TemporaryDirectory() as work:
        ...     used = [nodule.save(f"{work}/nodules"), slices.take([0, 1]).save(f"{work}/healthy_slices")]
        ...     others = slices.take(range(2, 7)).save(f"{work}/others")
        ...     compose(ComposeSettings(*map(str, used), f"{work}/composites", count=10))
        ...     EnhancerData(f"{work}/composites", others, used).summary()  # doctest: +ELLIPSIS
        10 of ...
        'train 8 composites, 4 real slices of 4 patients; val 2 composites, 1 real slices of 1 patients'
    """

    def __init__(
        self,
        composites_dir: str | os.PathLike[str],
        real_dir: str | os.PathLike[str],
        used_dirs: Sequence[str | os.PathLike[str]],
        window: str | Window | Sequence[float] = "lung",
        most: int | None = 1000,
        held_out: float = 0.2,
        seed: int = 0,
        augmentation: Transforms = None,
    ) -> None:
        self.window = window_by_name(window)
        self.composites, real = Composites(composites_dir), SliceBank.load(real_dir)
        check_no_shared_patients(real.records, real_dir, used_dirs)
        self.image_size: tuple[int, int] = (real.hu.shape[1], real.hu.shape[2])
        if tuple(self.composites.image_size) != self.image_size:
            raise UserError(
                f"{real_dir}: slices of {self.image_size} pixels, composites of "
                f"{tuple(self.composites.image_size)}; make both with one image_size"
            )
        self.patients = split_patients([r.patient for r in real.records], held_out, real_dir)
        numbers = split_numbers(len(self.composites), most, held_out, composites_dir)
        self.nominal_hu = any(record.nominal_hu for record in real.records)
        self.train, self.val = (
            UnpairedDataset(
                CompositeItems(self.composites, numbers[part], self.window),
                RealItems(real.hu[[r.patient in self.patients[part] for r in real.records]], self.window),
                seed,
                augmentation if part == "train" else None,
            )
            for part in ("train", "val")
        )
        logger.info(self.summary())

    def summary(self) -> str:
        """One line with the images and patients of each part."""
        parts = {"train": self.train, "val": self.val}
        return "; ".join(
            f"{name} {len(part.first)} composites, {len(part.second)} real slices of "
            f"{len(self.patients[name])} patients"
            for name, part in parts.items()
        )

    def metadata(self) -> dict[str, Any]:
        """The facts stored with a trained enhancer, as plain JSON."""
        return {
            "window_hu": [self.window.lower, self.window.upper],
            "nominal_hu": self.nominal_hu,
            "value_range": [-1.0, 1.0],
            "image_size": list(self.image_size),
            "splits": self.patients,
        }


def split_patients(
    patients: Sequence[str], held_out: float, folder: str | os.PathLike[str]
) -> dict[str, list[str]]:
    """Splits patients into training and validation, at least one each, sorted.

    Raises:
        UserError: there is only one patient.
    """
    names = sorted(set(patients))
    if len(names) < 2:
        raise UserError(f"{folder}: {len(names)} patient; at least 2 are needed, one is held out")
    kept = splits.held_out(names, held_out, 0, "enhancer")
    return {"train": [name for name in names if name not in kept], "val": kept}


def split_numbers(
    total: int, most: int | None, held_out: float, folder: str | os.PathLike[str]
) -> dict[str, list[int]]:
    """Splits the numbers of composites into training and validation, at least one each, sorted.

    Raises:
        UserError: there are fewer than two.
    """
    count = min(total, total if most is None else max(int(most), 2))
    if count < 2:
        raise UserError(f"{folder}: {total} composites; at least 2 are needed, one is held out")
    chosen = make_rng(0, "enhancer", "composites").permutation(total)[:count]
    kept = min(max(1, round(held_out * count)), count - 1)
    return {"train": sorted(chosen[kept:].tolist()), "val": sorted(chosen[:kept].tolist())}

"""The sets of images that a trust report compares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from monai.transforms import RandAffined, RandFlipd
from torch import Tensor

from common.data.replay import ReplayDataset
from common.errors import UserError
from common.rng import make_rng


@dataclass(frozen=True)
class ImageSet:
    """Slices as a bundle's network sees them.

    Attributes:
        images: float32 (N, 1, S, S) in [-1, 1].
        patients: one id an image; synthetic images each have their own.
        names: paths in ``folder``, with ``#PART`` for a part of a file.
        labels: conditions (N, 1, S, S): {0, 1} masks, or indices of structures; None without.
        structures: names of the label values from 1 on; one for masks.
        folder: of the files.
        scans: the patients as a model's splits name them, where several are known to be one person; () for
            ``patients``.

    Example:
        >>> images = ImageSet(torch.zeros(3, 1, 8, 8), ["a", "a", "b"], ["a1.png", "a2.png", "b1.png"])
        >>> images.select([2]).patients
        ['b']
    """

    images: Tensor
    patients: Sequence[str]
    names: Sequence[str]
    labels: Tensor | None = None
    structures: Sequence[str] = ()
    folder: str = ""
    scans: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def volumes(self) -> list[str] | None:
        """The file of each image, where files hold several: slices of one volume are not independent."""
        files = [name.split("#")[0] for name in self.names]
        return files if len(set(files)) < len(files) else None

    def select(self, indices: Sequence[int]) -> ImageSet:
        """Returns the images with these indices, in this order."""
        taken = list(indices)
        return replace(
            self,
            images=self.images[taken],
            patients=[self.patients[index] for index in taken],
            names=[self.names[index] for index in taken],
            labels=None if self.labels is None else self.labels[taken],
            scans=[self.scans[index] for index in taken] if self.scans else (),
        )


@dataclass(frozen=True)
class Sets:
    """The three sets of a report.

    Attributes:
        real: images that the generator was, or could have been, trained on.
        heldout: real images of other patients.
        synthetic: the generator's images.
    """

    real: ImageSet
    heldout: ImageSet
    synthetic: ImageSet


def labels_of(images: ImageSet) -> Tensor:
    """Returns the labels of a set that has some."""
    if images.labels is None:
        raise ValueError(f"{images.folder}: no labels")
    return images.labels


def join_sets(first: ImageSet, second: ImageSet) -> ImageSet:
    """Joins two sets, with labels if both have some."""
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = torch.cat([first.labels, second.labels])
    return ImageSet(
        torch.cat([first.images, second.images]),
        [*first.patients, *second.patients],
        [*first.names, *second.names],
        labels,
        first.structures,
    )


def split_by_patient(
    real: ImageSet, seed: int = 0, training: Collection[str] = ()
) -> tuple[ImageSet, ImageSet]:
    """Splits real images by patient into `Sets.real` and `Sets.heldout`.

    Args:
        real: all of them.
        seed: another seed gives another split; the order of the images does not matter.
        training: the patients that the model learned from, where they are known (``splits`` in its
            metadata): they become `Sets.real`. Without them patients are drawn until half of the images are
            held out, and results on copies hold only if the model was trained on the other half alone.
    Raises:
        UserError: one patient only, or the training patients are all or none of them.

    Example:
        >>> images = ImageSet(torch.zeros(4, 1, 8, 8), ["a", "a", "b", "c"], ["1", "2", "3", "4"])
        >>> real, heldout = split_by_patient(images, training=["a"])
        >>> real.names, heldout.names
        (['1', '2'], ['3', '4'])
    """
    known = set(training)
    scans = real.scans or real.patients
    kept = {patient for patient, scan in zip(real.patients, scans, strict=True) if scan in known}
    if not known:
        kept = _drawn(real.patients, seed)
    here = [index for index, patient in enumerate(real.patients) if patient in kept]
    there = [index for index, patient in enumerate(real.patients) if patient not in kept]
    if not here or not there:
        which = "all" if here else "none"
        problem = f"{which} of them among the model's training patients" if known else "which cannot be split"
        raise UserError(
            f"{real.folder or 'the real images'}: {len(set(real.patients))} patients, {problem}; "
            "give other patients' images with --heldout"
        )
    return real.select(here), real.select(there)


def _drawn(patients: Sequence[str], seed: int) -> set[str]:
    """Draws patients with about half of the images: the next one goes where fewer are."""
    names = sorted(set(patients))
    counts = Counter(patients)
    kept: set[str] = set()
    balance = 0
    for index in make_rng(seed, "trust", "split").permutation(len(names)):
        name = names[index]
        if balance <= 0:
            kept.add(name)
        balance += counts[name] if name in kept else -counts[name]
    return kept


class TrainingSlices(ReplayDataset):
    """Slices (1, S, S) in [-1, 1] with their targets; augmented for a `SampleIndex`, but not for an int.

    Args:
        images: (N, 1, S, S).
        targets: by name: maps (N, 1, S, S), which are augmented with the image, or numbers (N,).
        seed: of the augmentation.

    Example:
        >>> slices = TrainingSlices(torch.zeros(2, 1, 16, 16), {"class": torch.tensor([0, 1])})
        >>> slices[1]["image"].shape, int(slices[1]["class"])
        (torch.Size([1, 16, 16]), 1)
    """

    def __init__(self, images: Tensor, targets: Mapping[str, Tensor], seed: int = 0) -> None:
        tensors = {"image": images, **{k: v.float() if v.ndim > 1 else v for k, v in targets.items()}}
        items = [{**{k: v[n] for k, v in tensors.items()}, "sample": n} for n in range(len(images))]
        maps = [name for name, values in targets.items() if values.ndim > 1]
        shift = 0.04 * images.shape[-1]
        moved = RandAffined(
            ["image", *maps],
            prob=1.0,
            rotate_range=math.radians(6),
            translate_range=[shift, shift],
            scale_range=[0.06, 0.06],
            mode=["bilinear", *["nearest" for _ in maps]],
            padding_mode="border",
        )
        super().__init__(items, [RandFlipd(["image", *maps], prob=0.5, spatial_axis=1), moved], seed)

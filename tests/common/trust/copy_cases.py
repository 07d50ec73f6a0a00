"""Folders of images on which the release gate's answer is known, made from a folder of real ones.

    python -m tests.common.trust.copy_cases REAL FOLDER

writes ``real`` (what a generator was trained on), ``heldout``, and a folder of 200 synthetic images for each
case, for ``scripts/trust_report.py --real FOLDER/real --heldout FOLDER/heldout --synthetic FOLDER/CASE``.
Without further data the 140 images of a case that are no copies are those of patients kept apart, repeated
with a little noise where they are too few.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.rng import make_rng
from common.trust.image_sets import ImageSet, Sets, read_set
from common.trust.near_copies import blur, draw_principal, plant_copies
from common.trust.readers import ReadingSettings

IMAGES, COPIED = 200, 60
OPEN = ("unseen", "mean_image", "pca", "blurred_heldout")
SPARE = 4
"""Every so many-th patient is kept apart, as unseen by generator and gate."""


def split(real: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, held-out and unseen images, of different patients: of four patients one, but 20 at least, are
    held out, and two thirds of the others are trained on."""
    patients = sorted(set(real.patients))
    order = [patients[place] for place in make_rng(seed, "cases").permutation(len(patients))]
    heldout = max(20, len(order) // SPARE)
    trained = (len(order) - heldout) * 2 // 3
    ends = {name: place for place, name in enumerate(order)}
    sides = [(ends[name] >= trained) + (ends[name] >= trained + heldout) for name in real.patients]
    first, second, third = (
        real.select([place for place, where in enumerate(sides) if where == side]) for side in range(3)
    )
    return first, second, third


def cases(training: ImageSet, heldout: ImageSet, unseen: ImageSet, seed: int = 0) -> Mapping[str, Tensor]:
    """Synthetic images (200, 1, S, S) by case: `OPEN` ones must leave the gate open, the others close it."""
    numbers = make_rng(seed, "cases", "draws")
    others = _filled(unseen.images, IMAGES, numbers)
    chosen = torch.from_numpy(numbers.permutation(len(training))[:COPIED].copy())
    copied = plant_copies(training.images[chosen], numbers)
    harmless = {
        "unseen": others,
        "mean_image": _filled(training.images.mean(0, keepdim=True), IMAGES, numbers),
        "pca": draw_principal(training.images, IMAGES, numbers),
        "blurred_heldout": _filled(blur(heldout.images), IMAGES, numbers),
    }
    mixed = {name: torch.cat([part, others[: IMAGES - len(part)]]) for name, part in copied.items()}
    return {**harmless, **mixed}


def a_case(images: Tensor, training: ImageSet, heldout: ImageSet) -> Sets:
    """The sets of one case."""
    names = [f"{place:03d}.png" for place in range(len(images))]
    return Sets(training, heldout, ImageSet(images, names, names, folder="synthetic"))


def write(folder: Path, images: Tensor, names: list[str]) -> None:
    """8-bit PNGs."""
    folder.mkdir(parents=True)
    for image, name in zip(images, names, strict=True):
        gray = image[0].clamp(-1, 1).add(1).mul(127.5).round().byte().numpy()
        Image.fromarray(gray).save(folder / f"{Path(name).stem}.png")


def _filled(images: Tensor, count: int, numbers: np.random.Generator) -> Tensor:
    """``count`` images; those that come again are a little noisy."""
    repeated = images[torch.arange(count) % len(images)].clone()
    again = repeated[len(images) :]
    again += torch.from_numpy(numbers.normal(0, 0.01, again.shape)).to(images.dtype)
    return repeated


def main(source: str, target: str, size: int = 128) -> None:
    """Writes all folders."""
    training, heldout, unseen = split(read_set(source, ReadingSettings(size, kind="images", fit="pad")))
    for name, part in {"real": training, "heldout": heldout}.items():
        for file in part.names:  # as they are: padded copies look more alike than their patients are
            place = Path(target) / name / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(source) / file, place)
    for name, images in cases(training, heldout, unseen).items():
        write(Path(target) / name, images, [f"{name}{place:03d}" for place in range(len(images))])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

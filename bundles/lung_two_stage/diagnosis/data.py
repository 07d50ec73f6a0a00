"""The diagnosis's training and validation sets, as configs load them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bundles.lung_two_stage.diagnosis.slices import CATEGORY, JOINT, NODULE, SliceItems
from bundles.lung_two_stage.diagnosis.sources import BOTH, Sources
from common.data.augment import Augmentation
from common.data.intensity import Window, window_by_name
from common.data.split_data import KeptSplit
from common.errors import UserError
from common.files import read_json

NO_NODULE, SOME_NODULE = "none", "nodule"


class DiagnosisData(KeptSplit):
    """Slices for a classifier.

    Args:
        sources: see `bundles.lung_two_stage.diagnosis.sources.read_sources`.
        regime: what is learned from, see `bundles.lung_two_stage.diagnosis.sources.REGIMES`.
        task: see `bundles.lung_two_stage.diagnosis.slices.TASKS`.
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

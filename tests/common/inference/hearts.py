"""Made label files, and a network whose image tells which class it saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.data.labels import LabelSet
from common.inference.checkpoint import model_scale
from common.inference.datasets import LabelSlices
from common.inference.prepare_batch import mask_to_image
from common.inference.volume_writers import VolumeWriter

# Voxel axes to the patient's: as displayed, permuted and flipped, slices first, and turned and tilted.
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
TILT = np.array([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN @ TILT @ np.diag([0.9, -1.1, -2.5]), (-120, 80, 33)
AFFINES = {
    "lps": np.diag([-1.5, -1.5, 1.5, 1.0]),
    "permuted": np.array([[0, -0.7, 0, 3], [0.9, 0, 0, -4], [0, 0, -5.0, 7], [0, 0, 0, 1.0]]),
    "slices_first": np.array([[0, 0.7, 0, 0], [0, 0, 0.7, 0], [2.0, 0, 0, 0], [0, 0, 0, 1.0]]),
    "oblique": OBLIQUE,
}
WINDOW = (-200.0, 600.0)


def heart(*shape: int) -> np.ndarray:
    """Labels 0, 1, 2 and 7 in boxes that no flip or permutation leaves as they are."""
    label = np.zeros(shape, np.uint8)
    label[1:-2, 1:-1] = 1
    label[2:6, 2:5] = 7
    label[-4:-2, -3:-1] = 2
    label[2:4, 2:4, 0] = 0
    return label


def save(path: Path, label: np.ndarray, affine: np.ndarray = AFFINES["lps"]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, affine), path)
    return path


def model_facts(size: int, labels: str = "all", coarse: bool = False, **more: Any) -> dict[str, Any]:
    """What training writes beside a model, as far as inference reads it."""
    label_set = LabelSet(labels, None, coarse)
    return {
        "image_size": size,
        "condition": "label",
        "label_set": label_set.state(),
        "intensity": {"kind": "window", "lower": WINDOW[0], "upper": WINDOW[1]},
        "is_hu": True,
        "window_hu": list(WINDOW),
        **more,
    }


class Echo(nn.Module):
    """Class k of K as the gray value k / K, in [-1, 1]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, label: Tensor) -> Tensor:
        return 2 * label / max(1, self.classes) - 1


def hu_of(label: np.ndarray, classes: int = 7) -> np.ndarray:
    """What `Echo` makes of a label map, in HU."""
    return np.rint(WINDOW[0] + (WINDOW[1] - WINDOW[0]) * label / classes).astype(np.int16)


def generated(
    dataset: LabelSlices, output: Path, info: dict[str, Any], network: nn.Module | None = None, **options: Any
) -> VolumeWriter:
    writer = VolumeWriter(dataset, output, model_scale(info), **options)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=3),
        network=network or Echo(len(dataset.classes)),
        prepare_batch=mask_to_image,
        val_handlers=[writer],
    ).run()
    return writer

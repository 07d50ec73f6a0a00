"""Small made scans and methods whose results are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.data.nodules import NoduleScan, nodules_in_mask
from common.metrics.detection import Candidate
from tests.common.data.made_volumes import write_volume

SPACING = (2.0, 1.0, 1.0)


def scan_of(mask: NDArray[np.uint8], name: str = "a", patient: str = "") -> NoduleScan:
    """A scan (Z, H, W) with soft tissue in the mask and air elsewhere, 2 x 1 x 1 mm."""
    hu = np.where(mask > 0, 30, -900).astype(np.int16)
    return NoduleScan(hu, mask, SPACING, name, patient or name, nodules_in_mask(mask, SPACING))


def ball_mask(shape: Sequence[int], *boxes: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
    """A mask uint8 with these boxes in it."""
    mask = np.zeros(tuple(shape), np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


class Brightness(nn.Module):
    """A segmenter that takes what is brighter than the window's middle for nodule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] -> logits."""
        return self.scale * images


class Told:
    """A method that finds what it was told, scan by scan."""

    def __init__(
        self,
        name: str,
        answers: dict[str, list[tuple[tuple[float, float, float], float]]],
        drawn: dict[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        self.name, self.answers, self.drawn = name, answers, drawn

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """As told, 2 mm in radius."""
        return [
            Candidate(scan.name, position, score, 2.0) for position, score in self.answers.get(scan.name, [])
        ]

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """As told."""
        return None if self.drawn is None else self.drawn[scan.name]


def write_scans(folder: Path, patients: int = 8) -> Path:
    """A folder of pairs: volumes 32 x 32 x 6 with noise, each with one bright nodule of 5 pixels."""
    random = np.random.default_rng(0)
    for patient in range(patients):
        x, y = random.integers(4, 24, 2)
        mask = np.zeros((32, 32, 6), np.uint8)
        mask[x : x + 5, y : y + 5, 2:4] = 1
        hu = random.normal(-850, 40, mask.shape) + 800.0 * mask
        write_volume(folder, f"patient_{chr(97 + patient)}", hu, mask)
    return folder

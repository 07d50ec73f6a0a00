"""Pictures of what a detector or classifier sees, while it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors
from bundles.lung_two_stage.rivals.cube_data import CubeDataset
from bundles.lung_two_stage.rivals.detection import decode_boxes
from common.handlers.images import SEED, ImageGrid, sample

LEAST = 0.2
"""Score of a box that is drawn."""


class SeenGrid(ImageGrid):
    """As `ImageGrid`, of a network whose output is no picture: rows of input, what it sees, the truth.

    Args:
        seen: outputs and pictures (B, 1, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1].
    """

    def __init__(self, seen: Callable[[Tensor, Tensor], Tensor], **settings: Any) -> None:
        super().__init__(**settings)
        self.seen = seen

    def _rows(self, network: nn.Module) -> list[Tensor]:
        given = self.batch["label"]
        pictures = (
            (given if given.ndim == 4 else given[:, :, given.shape[2] // 2]).float().cpu().add(1).div(2)
        )
        outputs = sample(network, [given], SEED)
        return [pictures, self.seen(outputs, pictures), self.batch["image"].float().cpu().add(1).div(2)]


class DrawnBoxes:
    """Outlines of the boxes over the darkened pictures, as bright as they are sure."""

    def __init__(self, anchors: PyramidAnchors) -> None:
        self.anchors = anchors

    def __call__(self, outputs: Tensor, pictures: Tensor) -> Tensor:
        """(B, A, 5) and (B, 1, H, W) in [0, 1] -> (B, 1, H, W)."""
        drawn, anchors = pictures * 0.6, self.anchors(pictures)
        for picture, output in zip(drawn[:, 0], outputs, strict=True):
            boxes = decode_boxes(output, anchors, least=LEAST)
            corners = boxes.corners.round().long().clamp(min=0)
            for (top, left, bottom, right), score in zip(corners.tolist(), boxes.scores, strict=True):
                lines = torch.zeros_like(picture, dtype=torch.bool)
                lines[top:bottom, left:right] = True
                lines[top + 1 : bottom - 1, left + 1 : right - 1] = False
                picture[lines] = score
        return drawn


def probability_pictures(logits: Tensor, pictures: Tensor) -> Tensor:
    """An even picture of each probability: logits (B, 1) and (B, 1, H, W) -> (B, 1, H, W)."""
    return logits.sigmoid().view(-1, 1, 1, 1).expand_as(pictures)


def shown_cubes(dataset: CubeDataset, count: int) -> dict[str, Tensor]:
    """A batch for `SeenGrid`: cubes with a nodule, then without, and the truth as even pictures."""
    half = count // 2
    places = [*_spread(dataset.positive, half), *_spread(dataset.negative, count - half)]
    batch = default_collate([dataset[place] for place in places])
    image = batch["image"]  # (B, 1, D, S, S)
    truth = batch["label"].view(-1, 1, 1, 1).expand(-1, 1, *image.shape[-2:])
    return {"label": image, "image": truth * 2 - 1}


def _spread(places: NDArray[np.intp], count: int) -> list[int]:
    """So many of them, spread evenly; all where there are fewer."""
    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return [int(place) for place in places[chosen]]

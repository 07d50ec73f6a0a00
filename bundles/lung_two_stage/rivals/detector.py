"""A detector of slices as a method of Table I, and how good it is while it learns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bundles.lung_two_stage.rivals.anchors import SIZES, PyramidAnchors
from bundles.lung_two_stage.rivals.detection import Boxes, decode_boxes
from bundles.lung_two_stage.rivals.detector_network import PyramidDetector
from bundles.lung_two_stage.rivals.merging import merge_candidates
from common.data.intensity import Window, to_network, to_unit
from common.data.nodule_scan import NoduleScan, nodules_of
from common.inference.models import load_weights, model_info, model_window, network_for
from common.metrics.froc import LEAST_SCORE, Candidate, TrueNodule, competition_metric
from common.metrics.ignite_metrics import as_given, batched
from common.training.modes import evaluating

BATCH_PIXELS = 2**19
"""Of slices that pass through the network together."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file "
    "\"['bundles/lung_two_stage/configs/train_segmentation.yaml','bundles/lung_two_stage/configs/detector.yaml']\""
)
SQUARE = (1.0, 1.0, 1.0)
"""Of pictures measured in pixels."""


class DetectedNodules:
    """Boxes of all slices; those of one nodule in neighbouring slices become one candidate.

    Args:
        name: as the table shows it.
        network: slices -> outputs, see `bundles.lung_two_stage.rivals.detector_network`.
        window: of the slices, as in training.
        anchors: of the network's levels.
        least: score of a box that counts.
        most: boxes of a slice at most.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        window: Window,
        anchors: PyramidAnchors | None = None,
        least: float = LEAST_SCORE,
        most: int = 20,
    ) -> None:
        self.name, self.network, self.window = name, network, window
        self.anchors = anchors or PyramidAnchors()
        self.least, self.most = least, most

    @classmethod
    def from_model(
        cls, name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> DetectedNodules:
        """A trained one, with the window that it was trained with.

        Raises:
            UserError: no such model, or one that cannot be read.
        """
        network = load_weights(network_for(ckpt_path, PyramidDetector()), ckpt_path, HOW_TO_TRAIN)
        info = model_info(ckpt_path)
        anchors = PyramidAnchors(sizes=info.get("anchor_sizes", SIZES))
        return cls(name, network.to(device), model_window(info), anchors)

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Radius: of the box's mean side; score 0 to 1."""
        found = [
            candidate
            for z, boxes in enumerate(self._boxes(scan.hu))
            for candidate in box_candidates(boxes, scan.name, z, scan.spacing)
        ]
        return merge_candidates(found)

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """It draws none."""
        return None

    def _boxes(self, hu: NDArray[np.int16]) -> Iterator[Boxes]:
        device = next(self.network.parameters()).device
        missing = [-side % self.anchors.strides[-1] for side in hu.shape[1:]]
        count = max(1, BATCH_PIXELS // int(np.prod(hu.shape[1:])))
        for start in range(0, len(hu), count):
            slices = to_network(to_unit(hu[start : start + count], self.window, is_hu=True))
            images = torch.from_numpy(slices)[:, None].to(device)  # (B, 1, H, W)
            images = functional.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
            with evaluating(self.network), torch.inference_mode():
                outputs = self.network(images)
            anchors = self.anchors(images)
            yield from (decode_boxes(output, anchors, self.least, self.most) for output in outputs)


class DetectionQuality(Metric):
    """`common.metrics.froc.competition_metric` of one pass over patches. Higher is better, 1 at most.

    Args:
        anchors: of the network's levels.
        output_transform: engine output -> (outputs (B, A, 5), masks (B, 1, H, W)).
    """

    def __init__(
        self,
        anchors: PyramidAnchors,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.anchors = anchors
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.candidates: list[Candidate] = []
        self.nodules: list[TrueNodule] = []
        self.scans: list[str] = []

    def update(self, output: Any) -> None:
        """Adds a batch."""
        outputs, masks = (batched(item) for item in output[:2])
        anchors = self.anchors(masks).to(outputs.device)
        for given, mask in zip(outputs, masks[:, 0].cpu().numpy(), strict=True):
            self._add(decode_boxes(given, anchors), mask)

    def compute(self) -> float:
        """0 for a pass without nodules."""
        return competition_metric(self.candidates, self.nodules, self.scans) if self.nodules else 0.0

    def _add(self, boxes: Boxes, mask: NDArray[np.float32]) -> None:
        scan = str(len(self.scans))
        self.scans.append(scan)
        self.candidates += box_candidates(boxes, scan, 0, SQUARE)
        found = nodules_of((mask > 0).astype(np.uint8)[None], SQUARE)
        self.nodules += [TrueNodule(scan, nodule.centre_mm, nodule.diameter_mm) for nodule in found]


def box_candidates(
    boxes: Boxes, scan: str, z: int, spacing: tuple[float, float, float]
) -> Iterator[Candidate]:
    """The boxes of a slice in mm from the first voxel's centre."""
    corners: Tensor = boxes.corners.double().cpu()
    for (top, left, bottom, right), score in zip(corners.tolist(), boxes.scores.tolist(), strict=True):
        row, column = (top + bottom - 1) / 2, (left + right - 1) / 2  # boxes are half open
        radius = ((bottom - top) * spacing[1] + (right - left) * spacing[2]) / 4
        yield Candidate(scan, (z * spacing[0], row * spacing[1], column * spacing[2]), score, radius)

"""Anchor boxes of a feature pyramid, and which of them stand for which nodule.

Boxes are (row, column, row, column) in pixels, half open: first to last corner, MONAI's standard mode.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from monai.apps.detection.networks.retinanet_network import (
    RetinaNetClassificationHead,
    RetinaNetRegressionHead,
)
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.data.box_utils import box_iou, non_max_suppression
from monai.networks.blocks import ResidualUnit
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional
from torch.nn import functional as F
from torch.utils.data import default_collate

from bundles.lung_two_stage.baselines.candidates import CubeDataset, merge_candidates
from common.data.intensity import Window, to_network, to_unit
from common.data.nodules import NoduleScan, nodules_in_mask
from common.errors import UserError
from common.handlers.image_logging import SEED, ImageGrid, sample
from common.inference.checkpoint import load_weights, model_info, model_window, network_for
from common.metrics.detection import LEAST_SCORE, Candidate, TrueNodule, competition_metric
from common.metrics.ignite_metrics import as_given, batched
from common.training.contexts import evaluating
from common.training.steps import Context, Step

IGNORED, BACKGROUND = -2, -1
"""Of `match_anchors`: an anchor that teaches nothing, and one without a nodule."""
SIZES = (6, 8)
"""Pixels."""
NEIGHBOURS = np.ones((3, 3), np.uint8)


class PyramidAnchors(nn.Module):
    """The anchors of all levels, one after the other, as the heads' outputs are ordered.

    Args:
        strides: pixels of the image that a place of each level's feature map stands for.
        sizes: sides of the finest level's squares in pixels; those of the others grow with the stride.
    """

    def __init__(self, strides: Sequence[int] = (4, 8, 16), sizes: Sequence[int] = SIZES) -> None:
        super().__init__()
        self.strides, self.per_place = tuple(strides), len(sizes)
        scales = [stride / strides[0] for stride in strides]
        self.generate = AnchorGeneratorWithAnchorShape(scales, [(size, size) for size in sizes])

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W), both sides multiples of the largest stride -> (A, 4) float32."""
        height, width = images.shape[-2:]
        maps = [images.new_empty(1, 1, height // s, width // s, dtype=torch.float32) for s in self.strides]
        return self.generate(images[:1], maps)[0]


def match_anchors(anchors: Tensor, boxes: Tensor, low: float = 0.4, high: float = 0.5) -> Tensor:
    """The box each anchor (A, 4) stands for: its number among ``boxes`` (K, 4), `BACKGROUND` or `IGNORED`.

    An anchor with an IoU of at least ``high`` stands for the box that it overlaps most; below ``low`` it is
    background; between the two it is ignored. Each box gets the anchor that overlaps it most in any case.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlaps = box_iou(boxes.to(anchors), anchors)  # (K, A)
    best, matches = overlaps.max(0)
    matches = torch.where(best < high, torch.full_like(matches, IGNORED), matches)
    matches = torch.where(best < low, torch.full_like(matches, BACKGROUND), matches)
    most, favourite = overlaps.max(1)
    forced = most > 0  # a box beside all anchors has no favourite
    matches[favourite[forced]] = torch.arange(len(boxes), device=anchors.device)[forced]
    return matches


def boxes_of(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (K, 4) float32 of a mask's (H, W) pieces; pieces one pixel apart are one."""
    present = np.asarray(mask) > 0
    pieces, count = ndimage.label(ndimage.binary_dilation(present, NEIGHBOURS), NEIGHBOURS)
    found = ndimage.find_objects(pieces * present, count)
    corners = [(r.start, c.start, r.stop, c.stop) for r, c in (box for box in found if box is not None)]
    return np.array(corners, np.float32).reshape(-1, 4)


CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss of each logit, of the shape of ``logits``.

    Args:
        targets: 0 or 1.
        alpha: weight of the ones; the zeros get 1 - alpha.
        gamma: how much less the well classified count.
    """
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets  # 1 - p of the true class
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma * plain


def detection_losses(
    outputs: Tensor, anchors: Tensor, boxes: Sequence[Tensor], low: float = 0.4, high: float = 0.5
) -> dict[str, Tensor]:
    """``score`` and ``box``: sums over anchors, divided by the number of anchors that stand for a nodule.

    Args:
        outputs: (B, A, 5): logit and box code of each anchor.
        anchors: (A, 4).
        boxes: true ones of each picture, (K, 4); there may be none.
        low, high: see `match_anchors`.
    """
    matches = torch.stack([match_anchors(anchors, true, low, high) for true in boxes])  # (B, A)
    outputs, positive = outputs.float(), matches >= 0
    count = positive.sum().clamp(min=1)
    score = focal_loss(outputs[..., 0], positive.float())[matches != IGNORED].sum()
    wanted = [true.to(anchors)[match[match >= 0]] for true, match in zip(boxes, matches, strict=True)]
    codes = CODER.encode_single(torch.cat(wanted), anchors.expand(len(matches), -1, -1)[positive])
    box = F.smooth_l1_loss(outputs[..., 1:][positive], codes, reduction="sum", beta=1 / 9)
    return {"score": score / count, "box": box / count}


@dataclass(frozen=True)
class Boxes:
    """What a detector sees in one picture, the surest first.

    Args:
        corners: (K, 4) row, column, row, column in pixels, half open.
        scores: (K,) 0 to 1.
    """

    corners: Tensor
    scores: Tensor


def decode_boxes(
    outputs: Tensor, anchors: Tensor, least: float = LEAST_SCORE, most: int = 20, overlap: float = 0.2
) -> Boxes:
    """The boxes of one picture after non-maximum suppression.

    Args:
        outputs: (A, 5) logit and box code of each anchor.
        anchors: (A, 4).
        least: score that counts.
        most: boxes at most.
        overlap: IoU above which the less sure of two boxes goes.
    """
    scores = outputs[:, 0].float().sigmoid()
    best = scores.topk(min(10 * most, len(scores))).indices
    best = best[scores[best] >= least]
    corners = CODER.decode_single(outputs[best, 1:].float(), anchors[best])
    kept = non_max_suppression(corners, scores[best], overlap, max_proposals=most)
    return Boxes(corners[kept], scores[best][kept])


class DetectionStep(Step):
    """Teaches a detector the boxes around a mask's pieces.

    Args:
        anchors: of the network's levels.
        low, high: IoU below which an anchor is background and from which it stands for a nodule.
        inputs: entries of the batch that the network takes.
        target: entry with the masks (B, 1, H, W); any value above 0 is nodule.
    """

    def __init__(
        self,
        anchors: PyramidAnchors,
        low: float = 0.4,
        high: float = 0.5,
        inputs: Sequence[str] = ("image",),
        target: str = "label",
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (network,), (), weights, repeat)
        self.anchors, self.low, self.high = anchors, low, high
        self.network, self.inputs, self.target = network, tuple(inputs), target

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_score`` and ``NAME_box``."""
        outputs = context.output(self.network, self.inputs)
        masks = context.batch[self.target]
        boxes = [torch.from_numpy(boxes_of(mask)) for mask in masks[:, 0].cpu().numpy()]
        anchors = self.anchors(masks).to(outputs.device)
        losses = detection_losses(outputs, anchors, boxes, self.low, self.high)
        return {f"{self.name}_{name}": value for name, value in losses.items()}


LEVELS = 3


class PyramidDetector(nn.Module):
    """Scores and box codes of all anchors of `bundles.lung_two_stage.baselines.detector.PyramidAnchors`.

    Residual stages halve the picture again and again; those of strides 4, 8 and 16 feed the pyramid.

    Args:
        channels: of the stages of strides 2, 4, 8 and 16.
        width: channels of the pyramid and the heads; a multiple of 8.
        anchors: of each place.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 64), width: int = 32, anchors: int = 2) -> None:
        super().__init__()
        if len(channels) != LEVELS + 1 or width % 8:
            raise UserError(
                f"PyramidDetector: channels {list(channels)}, width {width}; give 4 channels, a multiple of 8"
            )
        widths = [1, *channels]
        self.stages = nn.ModuleList(
            ResidualUnit(2, widths[k], widths[k + 1], strides=2, norm="batch") for k in range(len(channels))
        )
        self.pyramid = FeaturePyramidNetwork(2, list(channels[1:]), width)
        self.scores = RetinaNetClassificationHead(width, anchors, 1, spatial_dims=2)
        self.boxes = RetinaNetRegressionHead(width, anchors, spatial_dims=2)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1], sides multiples of 16 -> (B, A, 5): logit, then the box's code."""
        levels: dict[str, Tensor] = OrderedDict()
        features = self.stages[0](images)
        for number, stage in enumerate(self.stages[1:]):
            features = levels[str(number)] = stage(features)
        maps = list(self.pyramid(levels).values())
        scores, boxes = (
            torch.cat([_by_anchor(part, values) for part in head(maps)], 1)
            for head, values in ((self.scores, 1), (self.boxes, 4))
        )
        return torch.cat([scores, boxes], 2)


def _by_anchor(output: Tensor, values: int) -> Tensor:
    """(B, anchors * values, H, W) -> (B, H * W * anchors, values), in the order of the anchors."""
    batch, _, height, width = output.shape
    parts = output.view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2)  # (B, H, W, anchors, values)
    return parts.reshape(batch, -1, values)


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
        network: slices -> outputs, see `bundles.lung_two_stage.baselines.detector`.
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
    """`common.metrics.detection.competition_metric` of one pass over patches. Higher is better, 1 at most.

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
        found = nodules_in_mask((mask > 0).astype(np.uint8)[None], SQUARE)
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

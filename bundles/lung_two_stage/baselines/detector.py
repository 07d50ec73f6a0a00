"""A 2-D detector with a feature pyramid, a baseline of Table I: anchors, losses, network, candidates.

Boxes are (row, column, row, column) in pixels, half open: first to last corner, MONAI's standard mode.
Network, anchors and box codes are MONAI's; its ``RetinaNetDetector`` matches anchors by torchvision, which is
no requirement here: matching, losses and decoding are below.
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
from monai.losses.focal_loss import sigmoid_focal_loss
from monai.networks.blocks import ResidualUnit
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops
from torch import Tensor, nn
from torch.nn import functional as F

from bundles.lung_two_stage.baselines.candidates import merge_candidates
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window
from common.data.nodules import NoduleScan, nodules_in_mask
from common.data.replay import Transform
from common.data.transforms import recorded_transforms
from common.errors import UserError
from common.handlers.image_logging import SEED, ImageGrid, sample
from common.inference.checkpoint import load_weights, model_info, model_window, network_for
from common.metrics.detection import LEAST_SCORE, Candidate, TrueNodule, competition_metric
from common.metrics.ignite_metrics import as_given, stack_items
from common.networks.state import evaluating
from common.training.steps import Context, SupervisedStep

IGNORED, BACKGROUND = -2, -1
"""Results of `match_anchors`: an anchor without a loss, and one without a nodule."""
SIZES = (6, 8)
"""Sides of anchors in pixels."""
NEIGHBOURS = np.ones((3, 3), np.uint8)
CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
ALPHA = 0.25
"""Weight of anchors with a nodule in the focal loss (Lin et al. 2017); the others have 1 - alpha."""
LEVELS = 3
BATCH_PIXELS = 2**19
"""Pixels of the slices in a batch."""
DRAWN_SCORE = 0.2
"""Least score of a box in pictures."""
SQUARE = (1.0, 1.0, 1.0)
"""The spacing of pictures that are measured in pixels."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file "
    "\"['bundles/lung_two_stage/configs/train_segmentation.yaml','bundles/lung_two_stage/configs/detector.yaml']\""
)


class PyramidAnchors(nn.Module):
    """The anchors of all levels, in the order of the heads' outputs.

    Args:
        strides: pixels of the image per pixel of each level's feature map.
        sizes: sides of the finest level's square anchors in pixels; they grow with the stride.

    Example:
        >>> PyramidAnchors(strides=(4, 8), sizes=(6,))(torch.zeros(1, 1, 16, 16)).shape  # 16 + 4 anchors
        torch.Size([20, 4])
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
    """Assigns anchors (A, 4) to boxes (K, 4): the index of a box, `BACKGROUND` or `IGNORED` for each (A,).

    An anchor with an IoU of at least ``high`` is assigned the box that it overlaps most; below ``low`` it is
    background; between the two it is ignored. Each box also gets the anchor that overlaps it most.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlaps = box_iou(boxes.to(anchors), anchors)  # (K, A)
    best, matches = overlaps.max(0)
    matches = torch.where(best < high, torch.full_like(matches, IGNORED), matches)
    matches = torch.where(best < low, torch.full_like(matches, BACKGROUND), matches)
    most, favourite = overlaps.max(1)
    forced = most > 0  # a box outside of all anchors has none
    matches[favourite[forced]] = torch.arange(len(boxes), device=anchors.device)[forced]
    return matches


def boxes_of(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (K, 4) float32 of a mask's (H, W) components; components one pixel apart are merged."""
    present = np.asarray(mask) > 0
    pieces, _ = ndimage.label(ndimage.binary_dilation(present, NEIGHBOURS), NEIGHBOURS)
    return np.array([piece.bbox for piece in regionprops(pieces * present)], np.float32).reshape(-1, 4)


def detection_losses(
    outputs: Tensor, anchors: Tensor, boxes: Sequence[Tensor], low: float = 0.4, high: float = 0.5
) -> dict[str, Tensor]:
    """The losses ``score`` and ``box``: sums over anchors, divided by the number of anchors with a nodule.

    Args:
        outputs: (B, A, 5): logit and box code of each anchor.
        anchors: (A, 4).
        boxes: true boxes of each image, (K, 4); K may be 0.
        low, high: see `match_anchors`.
    """
    matches = torch.stack([match_anchors(anchors, true, low, high) for true in boxes])  # (B, A)
    outputs, positive = outputs.float(), matches >= 0
    count = positive.sum().clamp(min=1)
    score = sigmoid_focal_loss(outputs[..., 0], positive.float(), alpha=ALPHA)[matches != IGNORED].sum()
    targets = [true.to(anchors)[match[match >= 0]] for true, match in zip(boxes, matches, strict=True)]
    codes = CODER.encode_single(torch.cat(targets), anchors.expand(len(matches), -1, -1)[positive])
    box = F.smooth_l1_loss(outputs[..., 1:][positive], codes, reduction="sum", beta=1 / 9)
    return {"score": score / count, "box": box / count}


@dataclass(frozen=True)
class Boxes:
    """Detected boxes of an image, by falling score.

    Args:
        corners: (K, 4) row, column, row, column in pixels, half open.
        scores: (K,) 0 to 1.
    """

    corners: Tensor
    scores: Tensor


def decode_boxes(
    outputs: Tensor, anchors: Tensor, least: float = LEAST_SCORE, most: int = 20, overlap: float = 0.2
) -> Boxes:
    """Decodes the boxes of an image, with non-maximum suppression.

    Args:
        outputs: (A, 5) logit and box code of each anchor.
        anchors: (A, 4).
        least: least score.
        most: boxes at most.
        overlap: IoU above which the box with the lower score is dropped.
    """
    scores = outputs[:, 0].float().sigmoid()
    best = scores.topk(min(10 * most, len(scores))).indices
    best = best[scores[best] >= least]
    corners = CODER.decode_single(outputs[best, 1:].float(), anchors[best])
    kept = non_max_suppression(corners, scores[best], overlap, max_proposals=most)
    return Boxes(corners[kept], scores[best][kept])


class DetectionStep(SupervisedStep):
    """Trains a detector on the boxes around the components of ``label`` masks (B, 1, H, W).

    Args:
        anchors: of the network's levels.
        low, high: IoU below which an anchor is background and from which it is assigned a nodule.
        network, name, optimizer, weights: see `common.training.steps.SupervisedStep`.

    Example:
        >>> context = Context({"G": PyramidDetector(channels=(8, 8, 8, 8), width=8)})
        >>> context.use({"image": torch.zeros(1, 1, 32, 32), "label": torch.zeros(1, 1, 32, 32)})
        >>> sorted(DetectionStep(PyramidAnchors()).losses(context))
        ['G_box', 'G_score']
    """

    def __init__(
        self,
        anchors: PyramidAnchors,
        low: float = 0.4,
        high: float = 0.5,
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__({}, network=network, name=name, optimizer=optimizer, weights=weights)
        self.anchors, self.low, self.high = anchors, low, high

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_score`` and ``NAME_box``."""
        outputs = context.output(self.network, self.inputs)
        masks = context.batch[self.target]
        boxes = [torch.from_numpy(boxes_of(mask)) for mask in masks[:, 0].cpu().numpy()]
        anchors = self.anchors(masks).to(outputs.device)
        losses = detection_losses(outputs, anchors, boxes, self.low, self.high)
        return {f"{self.name}_{name}": value for name, value in losses.items()}


class PyramidDetector(nn.Module):
    """Maps images to a score and a box code for each of `PyramidAnchors`.

    Residual stages halve the image; those of strides 4, 8 and 16 feed the pyramid.

    Args:
        channels: of the stages of strides 2, 4, 8 and 16.
        width: channels of the pyramid and the heads; a multiple of 8.
        anchors: per pixel of a feature map.
    Raises:
        UserError: a wrong number of channels or width.

    Example:
        >>> network = PyramidDetector(channels=(8, 8, 8, 8), width=8)
        >>> network(torch.zeros(2, 1, 32, 32)).shape  # 2 anchors at each of 64, 16 and 4 places
        torch.Size([2, 168, 5])
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


class DetectedNodules:
    """A method of Table I: the detector on all slices; boxes of a nodule in adjacent slices are merged.

    Args:
        name: in the table.
        network: see `PyramidDetector`.
        window, preprocessing: of the slices, as in training, see
            `bundles.lung_two_stage.segmentation.inference.network_input`.
        anchors: of the network's levels.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        window: Window,
        anchors: PyramidAnchors | None = None,
        preprocessing: Sequence[Transform] = (),
    ) -> None:
        self.name, self.network, self.window, self.preprocessing = name, network, window, preprocessing
        self.anchors = anchors or PyramidAnchors()

    @classmethod
    def from_model(
        cls, name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> DetectedNodules:
        """Loads a trained detector with its window.

        Raises:
            UserError: there is no model, or it cannot be read.
        """
        network = load_weights(network_for(ckpt_path, PyramidDetector()), ckpt_path, HOW_TO_TRAIN)
        info = model_info(ckpt_path)
        anchors = PyramidAnchors(sizes=info.get("anchor_sizes", SIZES))
        transforms = recorded_transforms(info)
        return cls(name, network.to(device), model_window(info), anchors, preprocessing=transforms)

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Candidates with half of the box's mean side as radius and a score from 0 to 1."""
        candidates = [
            candidate
            for z, boxes in enumerate(self._boxes(scan.hu))
            for candidate in box_candidates(boxes, scan.name, z, scan.spacing)
        ]
        return merge_candidates(candidates)

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """None: the method draws no masks."""
        return None

    def _boxes(self, hu: NDArray[np.int16]) -> Iterator[Boxes]:
        device = next(self.network.parameters()).device
        missing = [-side % self.anchors.strides[-1] for side in hu.shape[1:]]
        count = max(1, BATCH_PIXELS // int(np.prod(hu.shape[1:])))
        for start in range(0, len(hu), count):
            images = network_input(hu[start : start + count], self.window, self.preprocessing).to(device)
            images = F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
            with evaluating(self.network), torch.inference_mode():
                outputs = self.network(images)
            anchors = self.anchors(images)
            yield from (decode_boxes(output, anchors) for output in outputs)


class DetectionQuality(Metric):
    """LUNA16's score, `common.metrics.detection.competition_metric`, of one pass over patches; 1 at best.

    Args:
        anchors: of the network's levels.
        output_transform: engine output -> (outputs (B, A, 5), masks (B, 1, H, W)).

    Example:
        >>> quality = DetectionQuality(PyramidAnchors())
        >>> quality.update((torch.full((1, 168, 5), -9.0), torch.ones(1, 1, 32, 32)))  # finds nothing
        >>> quality.compute()
        0.0
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
        outputs, masks = (stack_items(item) for item in output[:2])
        anchors = self.anchors(masks).to(outputs.device)
        for prediction, mask in zip(outputs, masks[:, 0].cpu().numpy(), strict=True):
            self._add(decode_boxes(prediction, anchors), mask)

    def compute(self) -> float:
        """The score; 0 for a pass without nodules."""
        return competition_metric(self.candidates, self.nodules, self.scans) if self.nodules else 0.0

    def _add(self, boxes: Boxes, mask: NDArray[np.float32]) -> None:
        scan = str(len(self.scans))
        self.scans.append(scan)
        self.candidates += box_candidates(boxes, scan, 0, SQUARE)
        nodules = nodules_in_mask((mask > 0).astype(np.uint8)[None], SQUARE)
        self.nodules += [TrueNodule(scan, nodule.centre_mm, nodule.diameter_mm) for nodule in nodules]


def box_candidates(
    boxes: Boxes, scan: str, z: int, spacing: tuple[float, float, float]
) -> Iterator[Candidate]:
    """The boxes of a slice as candidates, in mm from the first voxel's centre."""
    corners: Tensor = boxes.corners.double().cpu()
    for (top, left, bottom, right), score in zip(corners.tolist(), boxes.scores.tolist(), strict=True):
        row, column = (top + bottom - 1) / 2, (left + right - 1) / 2  # boxes are half open
        radius = ((bottom - top) * spacing[1] + (right - left) * spacing[2]) / 4
        yield Candidate(scan, (z * spacing[0], row * spacing[1], column * spacing[2]), score, radius)


class BoxGrid(ImageGrid):
    """A picture of a detector during training: rows of input, detected boxes and true masks.

    Boxes are outlined over the darkened input, as bright as their score.

    Args:
        anchors: of the network's levels.
        settings: see `common.handlers.image_logging.ImageGrid`.

    Example:
        >>> grid = BoxGrid(PyramidAnchors(), log=None, batch={}, folder="")
        >>> grid.draw(torch.full((1, 168, 5), -9.0), torch.ones(1, 1, 32, 32)).unique()  # no boxes
        tensor([0.6000])
    """

    def __init__(self, anchors: PyramidAnchors, **settings: Any) -> None:
        super().__init__(**settings)
        self.anchors = anchors

    def _rows(self, network: nn.Module) -> list[Tensor]:
        images, masks = ((self.batch[name].float().cpu() + 1) / 2 for name in ("label", "image"))
        return [images, self.draw(sample(network, [self.batch["label"]], SEED), images), masks]

    def draw(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Draws the boxes of outputs (B, A, 5) over images (B, 1, H, W) in [0, 1]."""
        drawn, anchors = images * 0.6, self.anchors(images)
        for image, output in zip(drawn[:, 0], outputs, strict=True):
            boxes = decode_boxes(output, anchors, least=DRAWN_SCORE)
            corners = boxes.corners.round().long().clamp(min=0)
            for (top, left, bottom, right), score in zip(corners.tolist(), boxes.scores, strict=True):
                outline = torch.zeros_like(image, dtype=torch.bool)
                outline[top:bottom, left:right] = True
                outline[top + 1 : bottom - 1, left + 1 : right - 1] = False
                image[outline] = score
        return drawn

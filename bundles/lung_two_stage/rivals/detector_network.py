"""A feature-pyramid detector of MONAI's parts (Lin et al., CVPR 2017 and ICCV 2017)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from monai.apps.detection.networks.retinanet_network import (
    RetinaNetClassificationHead,
    RetinaNetRegressionHead,
)
from monai.networks.blocks import ResidualUnit
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from torch import Tensor, nn

from common.errors import UserError

LEVELS = 3


class PyramidDetector(nn.Module):
    """Scores and box codes of all anchors of `bundles.lung_two_stage.rivals.anchors.PyramidAnchors`.

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

"""The capsule discriminator of CapsuleGAN and W-CapsuleGAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bundles.lung_two_stage.generation.blocks import SLOPE, doublings, halving
from common.capsules.primary import PrimaryCapsules
from common.capsules.routing import RoutingCapsules
from common.capsules.squash import lengths
from common.errors import UserError
from common.networks.classes import class_projection
from common.networks.discriminators import Critique
from common.networks.norms import NONE

SCORES = ("linear", "length")
PRIMARY_SIDE = 4
"""Places of primary capsules on a side: an image of 32 pixels has 8 x 8 features, halved once more."""


class CapsuleDiscriminator(nn.Module):
    """Image to one number: two convolutions, primary capsules, routing (paper D; Jaiswal et al. 2018).

    (B, channels, S, S) in [-1, 1] -> scores (B, 1). Larger images have more convolutions, so that always 4 x
    4 places hold primary capsules.

    With the score ``linear`` several output capsules are routed to and a linear layer reads them before their
    squash: a critic without bounds, as the Wasserstein loss needs; the class is judged by projection. With
    ``length`` there is one output capsule for each class, else a single one, as published; its length, 0 to
    1, says how real the image is, as the margin loss needs. A single capsule leaves nothing to route.

    The convolutions begin with weights that keep the features' size: a squash makes short capsules shorter
    still, and routing sees nothing then.

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the first layer.
        channels: of the image.
        classes: number of classes; 0 for none.
        maps, size: primary capsules at each place, and their size.
        capsules, capsule_size: output capsules of the score ``linear``, and their size.
        iterations, gradients: see `common.capsules.routing.RoutingCapsules`. A gradient penalty needs
            ``all``.
        score: ``linear`` or ``length``.
        norm: of the convolutions but the first, see `common.networks.norms.norm_layer`. A gradient penalty
            needs any but ``batch``.
    Raises:
        UserError: no such size, score or norm.
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 32,
        channels: int = 2,
        classes: int = 0,
        maps: int = 16,
        size: int = 8,
        capsules: int = 8,
        capsule_size: int = 16,
        iterations: int = 3,
        gradients: str = "all",
        score: str = "linear",
        norm: str = NONE,
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise UserError(f"score {score!r} is unknown; choose {' or '.join(SCORES)}")
        count = max(1, classes) if score == "length" else capsules
        widths = [channels, *(width * 2**level for level in range(doublings(image_size) - 1))]
        self.hidden = nn.Sequential(
            *(halving(widths[n], widths[n + 1], norm if n else NONE) for n in range(len(widths) - 1))
        )  # down to 8 x 8
        for layer in self.hidden.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE, nonlinearity="leaky_relu")
        self.primary = PrimaryCapsules(widths[-1], maps, size, kernel=4, stride=2, padding=1)
        self.routing = RoutingCapsules(
            maps * PRIMARY_SIDE**2, size, count, capsule_size, iterations, gradients, score == "length"
        )
        self.linear = nn.Linear(count * capsule_size, 1) if score == "linear" else None
        self.projection = class_projection(classes if score == "linear" else 0, count * capsule_size)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Critique:
        """Images (B, channels, S, S) and, where there are classes, their indices (B,) -> scores (B, 1)."""
        features = self.hidden(image)
        capsules = self.routing(self.primary(features))  # (B, J, D)
        scores = (
            self._lengths(capsules, condition) if self.linear is None else self._read(capsules, condition)
        )
        return Critique([scores], [[features]])

    def _lengths(self, capsules: Tensor, condition: Tensor | None) -> Tensor:
        every = lengths(capsules)  # (B, J)
        return every[:, :1] if condition is None else every.gather(1, condition.long()[:, None])

    def _read(self, capsules: Tensor, condition: Tensor | None) -> Tensor:
        assert self.linear is not None
        values = capsules.flatten(1)  # (B, J D)
        with torch.autocast(values.device.type, enabled=False):
            scores: Tensor = self.linear(values)
            if condition is None:
                return scores
            return scores + (self.projection(condition) * values).sum(1, keepdim=True)

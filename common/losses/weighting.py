"""Reconstruction that counts some pixels more than others."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d

from common.losses.reconstruction import reconstruction_loss


class ConditionWeighted:
    """A distance to the target in which pixels inside the condition count ``weight`` times.

    Lesions cover a few per cent of a slice: a plain mean hardly notices a generator that leaves them out.

    Args:
        kind: a name in `common.losses.reconstruction.RECONSTRUCTIONS`.
        weight: of pixels where any channel of the condition is above 0.5; 1 is the plain mean.
        side: of the squares, in pixels, whose means are compared instead of pixels (a condition's count by
            their share of it); 1 for pixels. Where fine structures lie is then left to the generator.
    """

    def __init__(self, kind: str = "l1", weight: float = 1.0, side: int = 1) -> None:
        self.distance, self.weight, self.side = reconstruction_loss(kind), weight, side

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """generated, target (B, 1, H, W) and condition (B, C, H, W) -> scalar weighted mean."""
        generated, target = generated.float(), target.float()
        if self.side > 1:
            generated, target = avg_pool2d(generated, self.side), avg_pool2d(target, self.side)
        plain = self.distance(generated, target)
        if condition is None or self.weight == 1.0:
            return plain
        inside = (condition > 0.5).any(dim=1, keepdim=True).float()  # (B, 1, H, W)
        inside = avg_pool2d(inside, self.side) if self.side > 1 else inside
        extra = (self.weight - 1.0) * inside.mean()
        focused = self.distance(generated * inside, target * inside)  # mean over all pixels
        return (plain + (self.weight - 1.0) * focused) / (1.0 + extra)

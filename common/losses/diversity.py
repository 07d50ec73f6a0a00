"""Diversity: other noise shall give another picture of the same condition."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d


class DiversityLoss:
    """What a generator pays for drawing much the same picture from other noise.

    Mode seeking (Mao et al. 2019) with the bound of Yang et al. 2019: max(0, 1 - d / (share * d_real)), where
    d is the mean distance |G(c, z) - G(c, z')| of two pictures of one condition, and d_real that of
    neighbours in the batch of real images. It is 1 where noise changes nothing, and 0 once pictures of one
    condition differ by that share of what real images of different conditions do; no more is asked for.

    The second picture is drawn here, of the first ``pictures`` conditions.

    Args:
        network: the generator; called as ``network(condition)``, it draws its noise itself.
        pictures: conditions of a batch that are drawn a second time.
        share: of the real images' distance; 0 for no loss.
        side: of the squares, in pixels, whose means are compared: grain alone then counts for little.
    """

    def __init__(self, network: nn.Module, pictures: int = 2, share: float = 0.5, side: int = 4) -> None:
        self.network, self.pictures, self.share, self.side = network, pictures, share, side

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None) -> Tensor:
        """generated and target (B, 1, H, W), condition (B, K, H, W) -> scalar; 0 for a batch of one image."""
        if condition is None or len(target) < 2 or not self.share:
            return generated.new_zeros(())
        other = self.network(condition[: self.pictures])
        distance = self._distance(generated[: self.pictures], other)
        real = self._distance(target, target.roll(1, 0)).detach()
        return (1 - distance / (self.share * real).clamp_min(1e-6)).clamp_min(0)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        return avg_pool2d((one - other).float(), self.side).abs().mean()

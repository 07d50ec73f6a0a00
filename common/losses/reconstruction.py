"""Reconstruction losses between a generated image and its target, feature matching and diversity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import avg_pool2d

from common.errors import UserError

RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "smooth_l1": functional.smooth_l1_loss,
}


def reconstruction_loss(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the loss of that name, a function of (generated, target) that averages over all elements.

    Raises:
        UserError: no such distance.
    """
    if kind not in RECONSTRUCTIONS:
        names = ", ".join(RECONSTRUCTIONS)
        raise UserError(f"reconstruction loss '{kind}' is unknown; choose one of {names}")
    return RECONSTRUCTIONS[kind]


class ConditionWeighted:
    """A reconstruction loss in which pixels inside the condition weigh ``weight`` times as much.

    Lesions cover a few per cent of a slice: a plain mean hardly changes when a generator omits them.

    Args:
        kind: a name in `common.losses.reconstruction.RECONSTRUCTIONS`.
        weight: of pixels where any channel of the condition is above 0.5; 1 is the plain mean.
        side: of the squares, in pixels, whose means are compared instead of pixels (weighted by the
            condition's share of them); 1 for pixels. The position of fine structures is then free.

    Example:
        >>> mask = torch.tensor([[[[1.0, 0.0]]]])
        >>> loss = ConditionWeighted("l1", weight=3.0)
        >>> loss(torch.tensor([[[[1.0, 0.0]]]]), torch.zeros(1, 1, 1, 2), mask).item()  # 3 / (3 + 1)
        0.75
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


Layers = Tensor | Sequence[Tensor]
Features = Sequence[Layers]  # the layers of one discriminator, or those of each scale


def feature_matching_loss(real: Features, fake: Features) -> Tensor:
    """L1 distance between features of real and generated images (pix2pixHD, Wang et al. 2018, eq. 4).

    Mean over elements, then layers, then scales; a scalar. Gradients flow into ``fake`` alone. Pass the
    layers before the logits, e.g. ``features[:-1]`` of `monai.networks.nets.PatchDiscriminator`.

    Args:
        real, fake: feature maps of the same shapes, as a list of layers or a list (scales) of such lists.
    Raises:
        ValueError: the numbers of layers or scales differ, or there are none.

    Example:
        >>> feature_matching_loss([torch.zeros(2, 3)], [torch.ones(2, 3)]).item()
        1.0
    """
    if not real:
        raise ValueError("no features to match")
    distances = [_distance(target, made) for target, made in zip(real, fake, strict=True)]
    return torch.stack(distances).mean()


def _distance(real: Layers, fake: Layers) -> Tensor:
    if isinstance(real, Tensor) and isinstance(fake, Tensor):
        return functional.l1_loss(fake.float(), real.detach().float())
    return feature_matching_loss(list(real), list(fake))


class DiversityLoss:
    """Mode-seeking loss: high where another noise gives nearly the same image.

    Mode seeking (Mao et al. 2019) with the bound of Yang et al. 2019: max(0, 1 - d / (share * d_real)), where
    d is the mean distance |G(c, z) - G(c, z')| of two pictures of one condition, and d_real that of
    neighbours in the batch of real images. It is 1 where noise changes nothing, and 0 once images of one
    condition differ by that share of the difference between real images of different conditions.

    The second image of the first ``pictures`` conditions is generated here.

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

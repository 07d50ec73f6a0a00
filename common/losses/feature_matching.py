"""Feature matching: the discriminator shall see the same things in real and in generated images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Layers = Tensor | Sequence[Tensor]
Features = Sequence[Layers]  # the layers of one discriminator, or those of each scale


def feature_matching_loss(real: Features, fake: Features) -> Tensor:
    """The L1 distance between features of real and generated images (pix2pixHD, Wang et al. 2018, eq. 4).

    Mean over elements, then layers, then scales; a scalar. Gradients flow into ``fake`` alone. Pass the
    layers before the logits, e.g. ``features[:-1]`` of `monai.networks.nets.PatchDiscriminator`.

    Args:
        real, fake: feature maps of the same shapes, as a list of layers or a list (scales) of such lists.
    Raises:
        ValueError: the numbers of layers or scales differ, or there are none.
    """
    if not real:
        raise ValueError("no features to match")
    distances = [_distance(target, made) for target, made in zip(real, fake, strict=True)]
    return torch.stack(distances).mean()


def _distance(real: Layers, fake: Layers) -> Tensor:
    if isinstance(real, Tensor) and isinstance(fake, Tensor):
        return functional.l1_loss(fake.float(), real.detach().float())
    return feature_matching_loss(list(real), list(fake))

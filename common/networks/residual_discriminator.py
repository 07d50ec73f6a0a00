"""A discriminator without norm: residual halvings down to one logit, after FastGAN's (Liu et al. 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from common.networks.classes import class_projection
from common.networks.discriminators import Critique
from common.networks.skip_excitation import SLOPE, SMALLEST, channels_of, scaled, sides_up_to

HALF = 0.5**0.5


class ResidualDiscriminator(nn.Module):
    """Image to one logit.

    (B, 1, S, S) in [-1, 1] -> logits (B, 1, 1, 1). A 4 x 4 convolution of stride 2, then blocks that halve
    the map down to 4 x 4, and one convolution over what is left. A block is a 4 x 4 convolution of stride 2
    and a 3 x 3 one, plus a mean over 2 x 2 pixels with a 1 x 1 convolution (section 3.2 there, without the
    norm: it would tie the samples of a batch, of which each one's gradient is penalised). 3 215 969
    parameters at S = 128 and width 32. Layers are named by the side of their map, as those of
    `common.networks.skip_excitation.SkipExcitationGenerator`.

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the 64 x 64 map; twice as many at half the side, up to 8 times.
        classes: number of classes; 0 for none. The class is judged by projection: the product of a learned
            vector with the mean of the last map is added to the logit (Miyato and Koyama 2018).
    Attributes:
        draws_own_weights: see `common.networks.initialisation.initialise`.
    Raises:
        UserError: no such size.
    """

    draws_own_weights = True

    def __init__(self, image_size: int = 128, width: int = 32, classes: int = 0) -> None:
        super().__init__()
        sides = sides_up_to(image_size)[-2::-1]
        channels = [channels_of(side, width) for side in sides]
        first = nn.Sequential(scaled(nn.Conv2d(1, channels[0], 4, stride=2, padding=1)), nn.LeakyReLU(SLOPE))
        self.first = nn.ModuleDict({str(image_size): first})
        self.halvings = nn.ModuleDict(
            {str(side): Halving(channels[level], channels[level + 1]) for level, side in enumerate(sides[1:])}
        )
        self.last = nn.Conv2d(channels[-1], 1, SMALLEST)
        nn.init.normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.projection = class_projection(classes, channels[-1])

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Critique:
        """Images (B, 1, S, S) and, where there are classes, their indices (B,) -> logits (B, 1, 1, 1)."""
        features: list[Tensor] = []
        x = image
        for layer in (*self.first.values(), *self.halvings.values()):
            x = layer(x)
            features.append(x)
        logits = self.last(x)  # (B, 1, 1, 1)
        if condition is not None:
            fit = (self.projection(condition) * x.mean((2, 3))).sum(1)  # (B,)
            logits = logits + fit[:, None, None, None]
        return Critique([logits], [features])


class Halving(nn.Module):
    """(B, C, h, w) -> (B, D, h/2, w/2): two convolutions, and a straight way beside them."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.winding = nn.Sequential(
            scaled(nn.Conv2d(source, target, 4, stride=2, padding=1)),
            nn.LeakyReLU(SLOPE),
            scaled(nn.Conv2d(target, target, 3, padding=1)),
            nn.LeakyReLU(SLOPE),
        )
        self.straight = nn.Sequential(
            nn.AvgPool2d(2), scaled(nn.Conv2d(source, target, 1)), nn.LeakyReLU(SLOPE)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h/2, w/2)."""
        return (self.winding(x) + self.straight(x)) * HALF

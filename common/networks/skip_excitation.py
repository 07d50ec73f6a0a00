"""A light generator and discriminator for small sets: residual blocks without norm, skip-layer excitation.

Skip-layer excitation is FastGAN's (Liu et al. 2021, "Towards Faster and Stabilized GAN Training for
High-fidelity Few-shot Image Synthesis", section 3.1); residual blocks that begin as the identity and have no
norm are R3GAN's (Huang et al. 2024, "The GAN is dead; long live the GAN!", section 3.3). FastGAN's norm is
left out. The noise that it adds to its maps follows from the latent here: a latent is one image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import UserError
from common.networks.blocks import LayerNoise, NoLayerNoise, class_embedding, class_projection
from common.networks.discriminators import DiscriminatorOutput

SMALLEST = 4
"""Side of the first map, and of the maps that gates see."""
EMBEDDING = 16
"""Size of a class embedding, which is concatenated to the latent."""
LEVELS = 4
"""Doublings between a small map and the large one that it gates."""
WIDEST = 8
"""Largest number of channels of a map, in widths."""
SLOPE = 0.2


class SkipExcitationGenerator(nn.Module):
    """Generator of images from noise: residual blocks double the map, small maps gate large ones.

    (B, latent) from N(0, I), and (B,) class indices where there are classes -> (B, 1, S, S) in [-1, 1]. A
    dense layer makes a map of 4 x 4, blocks double it; a map of 64 or more pixels a side is weighed channel
    by channel by what the map of a sixteenth of its side says. A 3 x 3 convolution and tanh come last.
    No image depends on the others of its batch, in training or later. At the beginning all blocks are
    bilinear enlargement. 3 408 065 parameters at S = 128, width 32 and a latent of 100.

    Layers are named by the side of their map: the weights of a network for 64 x 64 but for its last layer are
    those of one for 128 x 128.

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: values of the noise.
        width: channels of the 64 x 64 map; twice as many at half the side, up to 8 times.
        classes: number of classes; 0 for none. A class is 16 learned values next to the latent, see
            `common.networks.blocks`.
        grain: add noise of learned strength after every doubling (`common.networks.blocks.LayerNoise`), so
            that the latent need not describe the noise of a CT.
    Attributes:
        draws_own_weights: see `common.networks.state.init_weights`.
    Raises:
        UserError: no such size.
    """

    draws_own_weights = True

    def __init__(
        self, image_size: int = 128, latent: int = 100, width: int = 32, classes: int = 0, grain: bool = False
    ) -> None:
        super().__init__()
        sides = sides_up_to(image_size)
        self.latent, self.classes, self.image_size = latent, classes, image_size
        self.embedding = class_embedding(classes, EMBEDDING)
        channels = [channels_of(side, width) for side in sides]
        source = latent + (EMBEDDING if classes else 0)
        self.first = nn.Linear(source, channels[0] * SMALLEST**2)
        blocks: dict[str, nn.Module] = {
            str(side): Doubling(
                channels[level - 1],
                channels[level],
                (channels[level - LEVELS], sides[level - LEVELS]) if level >= LEVELS else None,
            )
            for level, side in enumerate(sides)
            if level
        }
        self.smallest_side, self.levels = SMALLEST, LEVELS  # TorchScript knows no module's constants
        self.smallest = ResidualBlock(channels[0])
        self.doublings = nn.ModuleDict(blocks)
        self.grain = nn.ModuleDict(
            {
                str(side): LayerNoise(channels[level], seed=level) if grain else NoLayerNoise()
                for level, side in enumerate(sides)
                if level
            }
        )
        self.last = nn.ModuleDict({str(image_size): nn.Conv2d(channels[-1], 1, 3, padding=1)})

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, where there are classes, their indices (B,) -> images (B, 1, S, S)."""
        z = latent
        if condition is not None:
            z = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)  # (B, latent + 16)
        x = self.smallest(self.first(z).reshape(z.shape[0], -1, self.smallest_side, self.smallest_side))
        maps = [x]
        for doubling, grain in zip(self.doublings.values(), self.grain.values()):  # noqa: B905  TorchScript
            x = grain(doubling(x, maps[max(0, len(maps) - self.levels)]), latent)
            maps.append(x)
        for layer in self.last.values():
            x = layer(x)
        return torch.tanh(x.float())

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Reads the sizes from a state_dict of such a network, for messages."""
        classes = len(state["embedding.table"]) if "embedding.table" in state else 0
        latent = state["first.weight"].shape[1] - (EMBEDDING if classes else 0)
        side = next(int(name.split(".")[1]) for name in state if name.startswith("last."))
        return {"latent size": latent, "image size": side, "number of classes": classes}


class ResidualBlock(nn.Module):
    """x plus two 3 x 3 convolutions, each after a LeakyReLU: (B, C, h, w) -> (B, C, h, w).

    The second one starts at 0, so the block starts as the identity and needs no norm (Zhang et al. 2019,
    "Fixup").
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.active = nn.LeakyReLU(SLOPE)
        self.first = scaled(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.second(self.active(self.first(self.active(x))))


class Doubling(nn.Module):
    """Bilinear enlargement and a residual block, gated: (B, C, h, w) -> (B, D, 2h, 2w).

    Args:
        source, target: channels C and D; where they differ, a 1 x 1 convolution comes first.
        gate: channels and side of the small map that gates; None for no gate.
    """

    def __init__(self, source: int, target: int, gate: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.change = nn.Identity() if source == target else scaled(nn.Conv2d(source, target, 1))
        self.block = ResidualBlock(target)
        self.gate = NoGate() if gate is None else SkipExcitation(*gate, target)

    def forward(self, x: Tensor, small: Tensor) -> Tensor:
        """Maps (B, C, h, w) and the small ones that gate -> (B, D, 2h, 2w)."""
        x = functional.interpolate(self.change(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.gate(self.block(x), small)


class SkipExcitation(nn.Module):
    """Scales the channels of a large map by a small one (Liu et al. 2021, equation 1); initially by 1.

    Args:
        source, side: channels and side of the small map.
        target: channels of the large one.
    """

    def __init__(self, source: int, side: int, target: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(side // SMALLEST)
        self.squeeze = scaled(nn.Conv2d(source, target, SMALLEST))
        self.excite = nn.Conv2d(target, target, 1)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)  # type: ignore[arg-type]

    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        """(B, D, H, W), (B, C, h, h) -> (B, D, H, W)."""
        weights = self.excite(functional.silu(self.squeeze(self.pool(small))))  # (B, D, 1, 1)
        return large * (2 * torch.sigmoid(weights))


class NoGate(nn.Module):
    """Passes the large map on."""

    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        """(B, D, H, W), anything -> (B, D, H, W)."""
        return large


def channels_of(side: int, width: int) -> int:
    """Channels of a map: ``width`` at 64 pixels a side, twice as many at half of it, at most 8 widths."""
    return max(1, min(WIDEST * width, width * 64 // side))


def sides_up_to(image_size: int) -> list[int]:
    """4, 8, ... up to the image's side.

    Raises:
        UserError: not a power of 2 from 16 up.
    """
    if image_size < 4 * SMALLEST or image_size & (image_size - 1):
        raise UserError(f"image_size {image_size} does not fit the networks; take 64, 128 or 256")
    return [SMALLEST * 2**level for level in range((image_size // SMALLEST).bit_length())]


def scaled(convolution: nn.Conv2d) -> nn.Conv2d:
    """Initialises a convolution before a LeakyReLU (He et al. 2015)."""
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


HALF = 0.5**0.5


class ResidualDiscriminator(nn.Module):
    """Discriminator with one logit per image and, if wanted, one per place.

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
        patches: side of a map, each cell of which gives a logit too, as in a PatchGAN (Isola et al. 2017):
            they judge texture, such as vessels, the one logit the whole. A cell of the map of S / 8 sees
            46 x 46 pixels. 0 for none.
    Attributes:
        draws_own_weights: see `common.networks.state.init_weights`.
    Raises:
        UserError: no such size.

    Example:
        >>> images = torch.zeros(2, 1, 64, 64)
        >>> [tuple(logits.shape) for logits in ResidualDiscriminator(64, width=4, patches=8)(images).logits]
        [(2, 1, 1, 1), (2, 1, 8, 8)]
    """

    draws_own_weights = True

    def __init__(self, image_size: int = 128, width: int = 32, classes: int = 0, patches: int = 0) -> None:
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
        if patches and patches not in sides:
            raise UserError(f"patches {patches}: no map of this side; choose of {sides[:-1]}, or 0 for none")
        self.patches = nn.ModuleDict()
        if patches:
            head = nn.Conv2d(channels[sides.index(patches)], 1, 1)
            nn.init.normal_(head.weight, std=0.02)
            self.patches[str(patches)] = head

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, 1, S, S) and, where there are classes, their indices (B,) -> logits (B, 1, 1, 1), then
        those of the places (B, 1, P, P).
        """
        features: list[Tensor] = []
        x = image
        for layer in (*self.first.values(), *self.halvings.values()):
            x = layer(x)
            features.append(x)
        logits = self.last(x)  # (B, 1, 1, 1)
        if condition is not None:
            fit = (self.projection(condition) * x.mean((2, 3))).sum(1)  # (B,)
            logits = logits + fit[:, None, None, None]
        judged = {str(maps.shape[-1]): maps for maps in features}
        return DiscriminatorOutput(
            [logits, *(layer(judged[side]) for side, layer in self.patches.items())], [features]
        )


class Halving(nn.Module):
    """Residual block of stride 2: (B, C, h, w) -> (B, D, h/2, w/2)."""

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

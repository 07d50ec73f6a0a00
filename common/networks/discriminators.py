"""Patch discriminators on MONAI's nets, behind one call that all adversarial steps use, and DiffAugment.

DiffAugment (Zhao et al. 2020) is differentiable augmentation of what a discriminator sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm

from common.errors import UserError
from common.networks.blocks import monai_norm


class DiscriminatorOutput(NamedTuple):
    """A discriminator's output: one map of logits and a list of feature maps per scale."""

    logits: list[Tensor]
    features: list[list[Tensor]]


class ConditionalPatchDiscriminator(nn.Module):
    """MONAI's PatchDiscriminator on image and condition concatenated, at one or several scales.

    With ``num_layers_d=3`` and kernel 4 a logit sees 70 x 70 pixels (Isola et al. 2017); each further scale
    looks at the picture halved once more (Wang et al. 2018).

    Args:
        image_channels, condition_channels: of the two inputs; 0 of the condition for unconditional.
        channels: width of the first layer.
        num_layers_d: layers that double the width; 1, 2, 3, 4 see 16, 34, 70, 142 pixels.
        scales: number of scales.
        norm: ``batch``, ``instance`` (with a learned scale and shift), ``layer`` or ``none``, or any other in
            MONAI's terms: ``("instance", {"affine": False})``. Of all layers but the first and the last.
        spectral: spectral normalisation of every convolution (Miyato et al. 2018).

    Example:
        >>> discriminator = ConditionalPatchDiscriminator(channels=8, num_layers_d=1, scales=2)
        >>> output = discriminator(torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32))
        >>> [tuple(logits.shape) for logits in output.logits]
        [(2, 1, 14, 14), (2, 1, 6, 6)]
    """

    def __init__(
        self,
        image_channels: int = 1,
        condition_channels: int = 1,
        channels: int = 64,
        num_layers_d: int = 3,
        scales: int = 1,
        norm: str | tuple[str, dict[str, Any]] | None = "batch",
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            PatchDiscriminator(
                spatial_dims=2,
                channels=channels,
                in_channels=image_channels + condition_channels,
                num_layers_d=num_layers_d,
                norm=cast(Any, monai_norm(norm)),  # MONAI's layers take None, its annotation does not say so
            )
            for _ in range(scales)
        )
        if spectral:
            self.apply(_normalise_spectrally)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Image (B, C, H, W), condition (B, K, H, W) -> logits (B, 1, h, w) and features, a list a scale."""
        x = image if condition is None else torch.cat([image, condition], dim=1)  # (B, C + K, H, W)
        outputs: list[Sequence[Tensor]] = []
        for net in self.nets:
            outputs.append(net(x))
            x = avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return DiscriminatorOutput([o[-1] for o in outputs], [list(o[:-1]) for o in outputs])


def _normalise_spectrally(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        spectral_norm(module)


KINDS = ("brightness", "contrast", "translation", "cutout")
BRIGHTNESS, CONTRAST = 0.5, 0.5
"""Largest change of gray, in images of [-1, 1], and of the distance to the mean gray, relative."""
TRANSLATION, CUTOUT = 0.125, 0.5
"""Largest shift and side of the hole, as shares of the side."""
EMPTY = 0.0
"""Gray level of empty places: the middle, as published. Air would hide a shift."""


class AugmentationDraw(NamedTuple):
    """Random parameters of a batch.

    ``brightness`` and ``contrast`` (B,), 0 for no change; ``shift`` and ``hole`` (B, 2) in pixels, rows then
    columns: by how much an image moves down and right, and the hole's first row and column.
    """

    brightness: Tensor
    contrast: Tensor
    shift: Tensor
    hole: Tensor


class AugmentedDiscriminator(nn.Module):
    """A discriminator that in training sees every image, real or generated, changed at random.

    It then cannot memorise a few hundred images. Gradients flow through to the generator, which does not
    learn to draw changed images. A condition that is a map (a mask, a label, an image) is moved and cut with
    its image. In evaluation mode images pass unchanged. The random numbers come from torch's generator of the
    device, whose state the resume file holds.

    Args:
        discriminator: called as ``discriminator(image, condition)``.
        kinds: of `KINDS`.
    Raises:
        UserError: no such kind.
    """

    def __init__(self, discriminator: nn.Module, kinds: Sequence[str] = KINDS) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise UserError(f"augmentation {unknown[0]!r} is unknown; choose of {', '.join(KINDS)}")
        self.discriminator, self.kinds = discriminator, tuple(kinds)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, C, H, W) in [-1, 1] and a condition -> the discriminator's output.

        A map (B, K, H, W) moves with the images; latents and classes stay.
        """
        if self.training:
            draw = draw_augmentation(image)
            image = augmented(image, draw, self.kinds)
            if condition is not None and condition.ndim == image.ndim:
                condition = moved(condition, draw, self.kinds)
        critique: DiscriminatorOutput = self.discriminator(image, condition)
        return critique


def augmented_discriminator(discriminator: nn.Module, kinds: str | Sequence[str]) -> nn.Module:
    """Returns an `AugmentedDiscriminator`, or the discriminator itself without kinds.

    Args:
        kinds: of `KINDS`, as a list or separated by commas; ``all``, or nothing.

    Example:
        >>> augmented_discriminator(nn.Identity(), "translation, cutout").kinds
        ('translation', 'cutout')
        >>> augmented_discriminator(nn.Identity(), "")
        Identity()
    """
    if kinds == "all":
        return AugmentedDiscriminator(discriminator)
    listed = [kind.strip() for kind in kinds.split(",")] if isinstance(kinds, str) else list(kinds or ())
    chosen = [kind for kind in listed if kind]
    return AugmentedDiscriminator(discriminator, chosen) if chosen else discriminator


def draw_augmentation(image: Tensor) -> AugmentationDraw:
    """Draws the parameters of each image of a batch (B, C, H, W), whatever kinds are applied."""
    count, height, width = image.shape[0], image.shape[2], image.shape[3]
    unit = torch.rand(count, 6, device=image.device)  # (B, 6)
    side = torch.tensor([height, width], device=image.device)
    farthest = (side * TRANSLATION + 0.5).floor()
    shift = (unit[:, 2:4] * (2 * farthest + 1)).floor() - farthest
    hole = (unit[:, 4:6] * (side + 1)).floor() - (side * CUTOUT / 2).floor()
    signed = 2 * unit[:, :2] - 1
    return AugmentationDraw(BRIGHTNESS * signed[:, 0], CONTRAST * signed[:, 1], shift.long(), hole.long())


def augmented(image: Tensor, draw: AugmentationDraw, kinds: Sequence[str] = KINDS) -> Tensor:
    """Applies all kinds to a batch (B, C, H, W); differentiable in ``image``.

    Brightness and contrast change channel 0, the picture; others (alpha, a label map) have no gray.
    """
    return moved(_shaded(image, draw, kinds), draw, kinds)


def moved(maps: Tensor, draw: AugmentationDraw, kinds: Sequence[str] = KINDS) -> Tensor:
    """Applies the geometric kinds alone to a batch (B, C, H, W) of any type; empty places become 0."""
    if "translation" in kinds:
        maps = _shifted(maps, draw.shift)
    return _cut(maps, draw.hole) if "cutout" in kinds else maps


def _shaded(image: Tensor, draw: AugmentationDraw, kinds: Sequence[str]) -> Tensor:
    if not {"brightness", "contrast"} & set(kinds):
        return image
    shown, others = image[:, :1], image[:, 1:]
    if "brightness" in kinds:
        shown = shown + draw.brightness[:, None, None, None].to(image.dtype)
    if "contrast" in kinds:
        mean = shown.mean((1, 2, 3), keepdim=True)
        shown = mean + (shown - mean) * (1 + draw.contrast[:, None, None, None].to(image.dtype))
    return torch.cat([shown, others], dim=1)


def _shifted(image: Tensor, shift: Tensor) -> Tensor:
    """Moves each image by whole pixels; empty places become `EMPTY`."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device) - shift[:, :1]  # (B, H): where each row comes from
    columns = torch.arange(width, device=image.device) - shift[:, 1:]  # (B, W)
    inside = _within(rows, height)[:, None, :, None] & _within(columns, width)[:, None, None, :]
    index = rows.clamp(0, height - 1)[:, None, :, None].expand(-1, image.shape[1], -1, width)
    across = columns.clamp(0, width - 1)[:, None, None, :].expand(-1, image.shape[1], height, -1)
    moved = image.gather(2, index).gather(3, across)  # (B, C, H, W)
    return moved.masked_fill(~inside, EMPTY)


def _cut(image: Tensor, hole: Tensor) -> Tensor:
    """Cuts a square hole into each image, which may reach beyond the edge."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device) - hole[:, :1]  # (B, H)
    columns = torch.arange(width, device=image.device) - hole[:, 1:]  # (B, W)
    down, across = _within(rows, round(height * CUTOUT)), _within(columns, round(width * CUTOUT))
    return image.masked_fill(down[:, None, :, None] & across[:, None, None, :], EMPTY)


def _within(positions: Tensor, extent: int) -> Tensor:
    return (positions >= 0) & (positions < extent)

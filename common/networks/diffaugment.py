"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020): for small training sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.networks.discriminators import DiscriminatorOutput

KINDS = ("brightness", "contrast", "translation", "cutout")
BRIGHTNESS, CONTRAST = 0.5, 0.5
"""Largest change of gray, in images of [-1, 1], and of the distance to the mean gray, relative."""
TRANSLATION, CUTOUT = 0.125, 0.5
"""Largest shift and side of the hole, as shares of the side."""
EMPTY = 0.0
"""Gray of what a shift or a hole leaves: the middle, as published. Air would hide a shift."""


class AugmentationDraw(NamedTuple):
    """What was drawn for a batch.

    ``brightness`` and ``contrast`` (B,), 0 for no change; ``shift`` and ``hole`` (B, 2) in pixels, rows then
    columns: by how much an image moves down and right, and the hole's first row and column.
    """

    brightness: Tensor
    contrast: Tensor
    shift: Tensor
    hole: Tensor


class AugmentedDiscriminator(nn.Module):
    """A discriminator that in training sees every image changed at random, real and generated alike.

    It cannot learn 300 images by heart then. Gradients flow through to the generator, which learns from
    changed images but is not taught to draw them. A condition that is a map (a mask, a label, an image) is
    moved and cut with its image: what was at a place stays together. In evaluation mode images pass as they
    are. The random numbers come from torch's generator of the device, whose state the resume file holds.

    Args:
        discriminator: called as ``discriminator(image, condition)``.
        kinds: what is changed, of `KINDS`.
    Raises:
        UserError: no such change.
    """

    def __init__(self, discriminator: nn.Module, kinds: Sequence[str] = KINDS) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise UserError(f"augmentation {unknown[0]!r} is unknown; choose of {', '.join(KINDS)}")
        self.discriminator, self.kinds = discriminator, tuple(kinds)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, C, H, W) in [-1, 1], a condition -> what the discriminator says.

        Of the condition, a map (B, K, H, W) moves with the images; latents and classes stay.
        """
        if self.training:
            draw = draw_augmentation(image)
            image = augmented(image, draw, self.kinds)
            if condition is not None and condition.ndim == image.ndim:
                condition = moved(condition, draw, self.kinds)
        critique: DiscriminatorOutput = self.discriminator(image, condition)
        return critique


def augmented_discriminator(discriminator: nn.Module, kinds: str | Sequence[str]) -> nn.Module:
    """An `AugmentedDiscriminator`, or the discriminator itself where nothing is to be changed.

    Args:
        kinds: of `KINDS`, as a list or with commas between; ``all``, or nothing.
    """
    if kinds == "all":
        return AugmentedDiscriminator(discriminator)
    listed = [kind.strip() for kind in kinds.split(",")] if isinstance(kinds, str) else list(kinds or ())
    chosen = [kind for kind in listed if kind]
    return AugmentedDiscriminator(discriminator, chosen) if chosen else discriminator


def draw_augmentation(image: Tensor) -> AugmentationDraw:
    """Draws for a batch (B, C, H, W), each image for itself; as many numbers whatever is applied."""
    count, height, width = image.shape[0], image.shape[2], image.shape[3]
    unit = torch.rand(count, 6, device=image.device)  # (B, 6)
    side = torch.tensor([height, width], device=image.device)
    farthest = (side * TRANSLATION + 0.5).floor()
    shift = (unit[:, 2:4] * (2 * farthest + 1)).floor() - farthest
    hole = (unit[:, 4:6] * (side + 1)).floor() - (side * CUTOUT / 2).floor()
    signed = 2 * unit[:, :2] - 1
    return AugmentationDraw(BRIGHTNESS * signed[:, 0], CONTRAST * signed[:, 1], shift.long(), hole.long())


def augmented(image: Tensor, draw: AugmentationDraw, kinds: Sequence[str] = KINDS) -> Tensor:
    """The changed batch (B, C, H, W), differentiable in ``image``.

    Gray changes in channel 0 alone, the picture: others (alpha, a label map) have no gray.
    """
    return moved(_shaded(image, draw, kinds), draw, kinds)


def moved(maps: Tensor, draw: AugmentationDraw, kinds: Sequence[str] = KINDS) -> Tensor:
    """The batch (B, C, H, W), of any type, with what changes the place alone; 0, the background of labels,
    comes in."""
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
    """Each image moved by whole pixels; what comes in is `EMPTY`."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device) - shift[:, :1]  # (B, H): where each row comes from
    columns = torch.arange(width, device=image.device) - shift[:, 1:]  # (B, W)
    inside = _within(rows, height)[:, None, :, None] & _within(columns, width)[:, None, None, :]
    index = rows.clamp(0, height - 1)[:, None, :, None].expand(-1, image.shape[1], -1, width)
    across = columns.clamp(0, width - 1)[:, None, None, :].expand(-1, image.shape[1], height, -1)
    found = image.gather(2, index).gather(3, across)  # (B, C, H, W)
    return found.masked_fill(~inside, EMPTY)


def _cut(image: Tensor, hole: Tensor) -> Tensor:
    """Each image with a square hole, which may reach beyond the edge."""
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device) - hole[:, :1]  # (B, H)
    columns = torch.arange(width, device=image.device) - hole[:, 1:]  # (B, W)
    down, across = _within(rows, round(height * CUTOUT)), _within(columns, round(width * CUTOUT))
    return image.masked_fill(down[:, None, :, None] & across[:, None, None, :], EMPTY)


def _within(places: Tensor, extent: int) -> Tensor:
    return (places >= 0) & (places < extent)

"""Translation of CT to another contrast: a generator that adds a change to its condition."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bundles.patchgan_cardiac.networks import HeartGenerator


class ContrastGenerator(nn.Module):
    """Adds twice the output of a `HeartGenerator` to its input image, (B, 1, S, S) in [-1, 1] both.

    Structures that both contrasts share pass through at full resolution; an output of 0 leaves the image as
    it is. The factor 2 lets a change reach from black to white; the sum is clipped to [-1, 1].

    Args:
        encoding: ``image``.
        settings: further arguments of `HeartGenerator`.

    Example:
        >>> import torch
        >>> network = ContrastGenerator(classes=1, levels=2, width=4)
        >>> network(torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 1, 16, 16])
    """

    def __init__(self, encoding: str = "image", **settings: Any) -> None:
        super().__init__()
        self.change = HeartGenerator(encoding=encoding, **settings)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Condition image (B, 1, S, S) -> image (B, 1, S, S), both in [-1, 1]; noise as `HeartGenerator`."""
        return (label + 2 * self.change(label, noise)).clamp(-1.0, 1.0)

"""CT to another contrast: a generator that changes its condition instead of drawing anew."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bundles.patchgan_cardiac.networks import HeartGenerator


class ContrastGenerator(nn.Module):
    """Adds what a `HeartGenerator` draws, doubled, to the image it sees: (B, 1, S, S) in [-1, 1], both ways.

    What both contrasts have in common passes through at full resolution; while the network says nothing the
    condition comes back. Doubled, its range reaches from black to white; the sum is clipped to [-1, 1].

    Args:
        encoding: ``image``.
        settings: the others of `HeartGenerator`.
    """

    def __init__(self, encoding: str = "image", **settings: Any) -> None:
        super().__init__()
        self.change = HeartGenerator(encoding=encoding, **settings)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Condition image (B, 1, S, S) -> image (B, 1, S, S), both in [-1, 1]; noise as `HeartGenerator`."""
        return (label + 2 * self.change(label, noise)).clamp(-1.0, 1.0)

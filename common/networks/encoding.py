"""How a network sees the classes of a label map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.errors import UserError

ENCODINGS = ("index", "onehot", "image")


class ClassEncoding(nn.Module):
    """A map of class indices as the channels that a network takes: (B, 1, H, W) -> (B, `channels`, H, W).

    Args:
        classes: K, the number of classes beside the background 0.
        kind: ``index``: index / K in [0, 1], one channel, as Habijan and Galic published it. ``onehot``: K
            channels in {0, 1}, channel k - 1 for class k. ``image``: not a label but an image in [-1, 1],
            passed through.
    Raises:
        UserError: no such encoding, or no class.
    """

    def __init__(self, classes: int = 1, kind: str = "index") -> None:
        super().__init__()
        if kind not in ENCODINGS:
            raise UserError(f"encoding {kind!r} is unknown; choose one of {', '.join(ENCODINGS)}")
        if classes < 1:
            raise UserError(f"{classes} classes to encode; there must be at least one")
        self.classes, self.kind = int(classes), kind

    @property
    def channels(self) -> int:
        """Channels that come out."""
        return self.classes if self.kind == "onehot" else 1

    def forward(self, label: Tensor) -> Tensor:
        """Class indices (B, 1, H, W) in 0..K -> (B, channels, H, W); an image passes as it is."""
        if self.kind == "onehot":
            indices = torch.arange(1, self.classes + 1, device=label.device).view(1, -1, 1, 1)  # (1, K, 1, 1)
            return (label.round() == indices).to(label.dtype)  # (B, K, H, W)
        if self.kind == "index":
            return label / self.classes
        return label

"""From feature maps to the first layer of capsules."""

from __future__ import annotations

from torch import Tensor, nn

from common.capsules.squash import squash


class PrimaryCapsules(nn.Module):
    """A convolution whose channels are read as capsules: (B, C, H, W) -> (B, maps h w, size), squashed.

    Sabour et al. 2017, section 4, take 32 maps of capsules of 8, a kernel of 9 and a stride of 2.

    Args:
        channels: C.
        maps: kinds of capsules at each place.
        size: of a capsule.
        kernel, stride, padding: of the convolution.
    """

    def __init__(
        self,
        channels: int,
        maps: int = 32,
        size: int = 8,
        kernel: int = 9,
        stride: int = 2,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.maps, self.size = maps, size
        self.convolution = nn.Conv2d(channels, maps * size, kernel, stride, padding)
        # As large as the features are: a squash makes short capsules shorter still.
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="linear")

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) -> capsules (B, maps h w, size) of lengths below 1."""
        values = self.convolution(features)  # (B, maps size, h, w)
        values = values.unflatten(1, (self.maps, self.size)).flatten(3)  # (B, maps, size, h w)
        return squash(values.transpose(2, 3).flatten(1, 2))  # (B, maps h w, size)

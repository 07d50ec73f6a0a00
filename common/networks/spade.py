"""MONAI's SPADE net behind the call that all generators here have."""

from __future__ import annotations

import torch
from monai.networks.nets import SPADENet
from torch import Tensor, nn

from common.networks.encoding import ClassEncoding
from common.networks.texture import drawn_noise, textured


class SpadeGenerator(nn.Module):
    """MONAI's SPADENet without its encoder (Park et al. 2019): the label steers every normalisation layer.

    Class indices (B, 1, S, S) in 0..classes -> (B, 1, S, S) in [-1, 1]. TorchScript can trace MONAI's net but
    not compile it (``ckpt_export --use_trace true``).

    Args:
        image_size: S, a multiple of ``2 ** len(channels)``; the net takes no other size.
        channels: widths from the outermost level to the innermost.
        classes, encoding: of the label, see `common.networks.encoding`.
        noise, texture: channels of noise beside the label, see `common.networks.texture`.
    """

    def __init__(
        self,
        image_size: int = 128,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        classes: int = 1,
        encoding: str = "index",
        texture: int = 0,
        noise: int = 0,
    ) -> None:
        super().__init__()
        self.encoding, self.texture = ClassEncoding(classes, encoding), textured(texture)
        self.noise = drawn_noise(noise)
        self.net = SPADENet(
            spatial_dims=2,
            in_channels=1,
            out_channels=channels[0],
            label_nc=self.encoding.channels + texture + noise,
            input_shape=[image_size, image_size],
            channels=list(channels),
            is_vae=False,
            spade_intermediate_channels=4 * channels[0],
        )
        self.head = nn.Conv2d(channels[0], 1, 3, padding=1)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Class indices (B, 1, S, S) in 0..classes, noise (B, C, S, S) or none -> (B, 1, S, S) in [-1, 1]."""
        seen = self.noise(self.texture(self.encoding(label)), label, noise)  # (B, .. + noise, S, S)
        return torch.tanh(self.head(self.net(seen)[0]))

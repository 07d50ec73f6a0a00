from __future__ import annotations

import torch
from torch import Tensor, nn

from common.inference.drawing import draw_images
from common.inference.numbering import BLOCK


class Counting(nn.Module):
    """Gives back its first value as an image; remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.sizes = nn.Parameter(torch.ones(())), []
        self.dropout = nn.Dropout(0.9)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        self.sizes.append(len(latent))
        value = latent[:, :1] + (0 if condition is None else condition[:, None])
        return self.dropout(self.weight * value)[:, :, None, None]


def test_any_number_goes_through_in_blocks_without_gradients() -> None:
    network, latents = Counting().train(), torch.randn(BLOCK + 5, 3)
    images = draw_images(network, latents)
    assert network.sizes == [BLOCK, 5] and network.training and not images.requires_grad
    torch.testing.assert_close(images[:, 0, 0, 0], latents[:, 0])


def test_each_latent_with_its_own_class() -> None:
    latents, classes = torch.randn(40, 2), torch.arange(40.0)
    images = draw_images(Counting(), latents, classes)
    torch.testing.assert_close(images[:, 0, 0, 0], latents[:, 0] + classes)

"""3 x 3 convolutions with fewer products (Lavin and Gray 2016, F(4 x 4, 3 x 3)), for inference on CPUs.

A tile of 4 x 4 results takes 36 products a pair of channels instead of 144. The transforms cost additions and
memory; with 64 channels and more the products weigh more. Results differ from the plain convolution's in the
last bits. Feature maps are (B, H, W, C) here: a pixel's channels lie together, so tiles are cut in long runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 4
"""Side of a tile of results; tiles of 6 x 6 inputs overlap by 2."""
WINDOW = TILE + 2
# Transforms of kernel (6, 3), input (6, 6) and output (4, 6); points 0, 1, -1, 2, -2 and infinity.
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConvolution:
    """A 3 x 3 convolution of stride 1 without padding and bias.

    Args:
        weight: (D, C, 3, 3) float32.
    """

    def __init__(self, weight: Tensor) -> None:
        kernel, source, target = (torch.tensor(rows, dtype=torch.float64) for rows in (KERNEL, INPUT, OUTPUT))
        plain = weight.detach().double().cpu()
        transformed = torch.einsum("ab,ocbd,ed->aeco", kernel, plain, kernel)  # (6, 6, C, D)
        self.weight = transformed.reshape(WINDOW**2, *transformed.shape[2:]).float()  # (36, C, D)
        self.source = torch.kron(source, source).float()  # (36, 36)
        self.target = torch.kron(target, target).float()  # (16, 36)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H + 2, W + 2, C) -> (B, H, W, D), H and W multiples of 4."""
        tiles = x.unfold(1, WINDOW, TILE).unfold(2, WINDOW, TILE)  # (B, h, w, C, 6, 6)
        count, rows, columns, channels = tiles.shape[:4]
        cut = tiles.permute(4, 5, 0, 1, 2, 3).reshape(WINDOW**2, -1)  # (36, B h w C)
        values = (self.source @ cut).view(WINDOW**2, -1, channels)  # (36, B h w, C)
        products = torch.bmm(values, self.weight).view(WINDOW**2, -1)  # (36, B h w D)
        results = (self.target @ products).view(TILE, TILE, count, rows, columns, -1)
        return results.permute(2, 3, 0, 4, 1, 5).reshape(count, TILE * rows, TILE * columns, -1)

"""A trained `ResnetGenerator` faster on CPUs, in float32: the same numbers but for the last bits.

Two thirds of its time go into the 3 x 3 convolutions of the residual blocks, which can do with a quarter of
the products (see `common.networks.fast_resnet`); the way up and the last convolution, which draws a single
channel, are slow in the layout of the rest. From the first block on feature maps are (B, H, W, C) here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from common.networks.generators import ResidualBlock, ResnetGenerator

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


EPSILON = 1e-5  # of nn.InstanceNorm2d
NEAREST = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))
"""Which rows of a 3 x 3 kernel fall on one pixel after doubling, for the rows of the 4 x 4 kernel."""


class FastResnet(nn.Module):
    """Takes over a generator's weights as they are now; for inference only.

    Args:
        network: on the CPU, in float32.
    """

    def __init__(self, network: ResnetGenerator) -> None:
        super().__init__()
        layers = list(network.layers)
        places = [place for place, layer in enumerate(layers) if isinstance(layer, ResidualBlock)]
        self.head = nn.Sequential(*layers[: places[0]])
        self.blocks = [_convolutions(layers[place]) for place in places]
        self.tail = [_doubling(layer) for layer in layers[places[-1] + 1 :]]
        self.last, self.residual = network.last, network.residual

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] -> (B, 1, H, W) in [-1, 1]; H and W as the generator's."""
        x = self.head(image).permute(0, 2, 3, 1).contiguous()  # (B, h, w, C)
        for first, second in self.blocks:
            x = x + normalise(second(mirrored(normalise(first(mirrored(x, 1))).relu_(), 1)))
        for layer in self.tail:
            x = self._after(layer, x)
        drawn = torch.tanh(draw(mirrored(x, self.last.kernel_size[0] // 2), self.last))
        return (image + drawn).clamp(-1, 1) if self.residual else drawn

    @staticmethod
    def _after(layer: nn.Module, x: Tensor) -> Tensor:
        """A layer of the way up: (B, h, w, C) -> (B, h', w', D)."""
        if isinstance(layer, nn.InstanceNorm2d):
            return normalise(x)
        if isinstance(layer, nn.ReLU):
            return x.relu_()
        result: Tensor = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return result.contiguous()


def fast(network: nn.Module, image_size: tuple[int, int]) -> nn.Module:
    """The network itself, or its `FastResnet` where it is a `ResnetGenerator` on the CPU in float32.

    Args:
        image_size: (H, W); the blocks' maps must be cut into tiles of 4 x 4 without a rest.
    """
    if not isinstance(network, ResnetGenerator):
        return network
    weight = network.last.weight
    downsamplings = sum(isinstance(m, nn.Conv2d) and m.stride[0] == 2 for m in network.layers)
    fits = all(side % (TILE * 2**downsamplings) == 0 for side in image_size)
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return FastResnet(network).eval() if fits and plain else network


def normalise(x: Tensor) -> Tensor:
    """Instance norm without weights of (B, H, W, C), in place."""
    pixels = x.view(len(x), -1, x.shape[-1])  # (B, H W, C)
    ones = pixels.new_full((len(x), 1, pixels.shape[1]), 1 / pixels.shape[1])
    pixels -= torch.bmm(ones, pixels)  # means as products with ones: a reduction over rows is slow
    variance = torch.bmm(ones, pixels.square())
    pixels *= (variance + EPSILON).rsqrt()
    return x


def mirrored(x: Tensor, margin: int) -> Tensor:
    """(B, H, W, C) with a mirrored margin: (B, H + 2 m, W + 2 m, C)."""
    count, height, width, channels = x.shape
    padded = x.new_empty(count, height + 2 * margin, width + 2 * margin, channels)
    padded[:, margin:-margin, margin:-margin] = x
    for step in range(1, margin + 1):
        padded[:, margin - step, margin:-margin] = x[:, step]
        padded[:, height + margin - 1 + step, margin:-margin] = x[:, -1 - step]
    for step in range(1, margin + 1):
        padded[:, :, margin - step] = padded[:, :, margin + step]
        padded[:, :, width + margin - 1 + step] = padded[:, :, width + margin - 1 - step]
    return padded


def draw(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The last convolution of padded maps (B, H + 2 m, W + 2 m, C) -> (B, D, H, W).

    Its few channels leave a plain convolution's arithmetic idle. So the products of all pixels with all
    places of the kernel come first, and are added up shifted.
    """
    count, height, width, channels = x.shape
    side = layer.kernel_size[0]
    weight = layer.weight.permute(0, 2, 3, 1).reshape(-1, channels)  # (D k k, C)
    products = (weight @ x.view(-1, channels).T).view(-1, side, side, count, height, width)
    result = products.new_zeros(len(products), count, height - side + 1, width - side + 1)
    for row in range(side):
        for column in range(side):
            result += products[:, row, column, :, row : row + result.shape[2], column:][
                ..., : result.shape[3]
            ]
    if layer.bias is not None:
        result += layer.bias.view(-1, 1, 1, 1)
    return result.transpose(0, 1)  # (B, D, H, W)


def _doubling(layer: nn.Module) -> nn.Module:
    """A layer of the way up as a transposed convolution channels last, which is several times as fast.

    Nearest pixels and a 3 x 3 convolution are a 4 x 4 transposed convolution whose weights are sums.
    """
    if isinstance(layer, nn.Sequential):
        convolution = layer[1]
        assert isinstance(convolution, nn.Conv2d)
        weight = convolution.weight.detach()  # (D, C, 3, 3)
        doubled = nn.ConvTranspose2d(weight.shape[1], weight.shape[0], 4, stride=2, padding=1, bias=False)
        sums = weight.new_tensor(NEAREST)
        doubled.weight.data = torch.einsum("ab,ocbd,ed->coae", sums, weight, sums)
        layer = doubled
    elif isinstance(layer, nn.ConvTranspose2d):
        layer = copy.deepcopy(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layer


def _convolutions(block: nn.Module) -> tuple[WinogradConvolution, WinogradConvolution]:
    first, second = (m for m in block.modules() if isinstance(m, nn.Conv2d))
    return WinogradConvolution(first.weight), WinogradConvolution(second.weight)

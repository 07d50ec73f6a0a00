"""The first GAN's networks: nothing but dense layers (Goodfellow et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bundles.lung_two_stage.generation.blocks import EMBEDDING, SLOPE
from common.networks.classes import class_embedding
from common.networks.discriminators import Critique


class DenseGenerator(nn.Module):
    """Noise to image by three dense layers: (B, latent) and classes (B,) -> (B, channels, S, S) in [-1, 1].

    Args:
        image_size: S.
        latent: values of the noise.
        width: values between the layers.
        channels: of the image.
        classes: number of classes; 0 for none.
    """

    def __init__(
        self, image_size: int = 32, latent: int = 64, width: int = 256, channels: int = 2, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.shape = channels, image_size, image_size
        self.embedding = class_embedding(classes, EMBEDDING)
        source = latent + (EMBEDDING if classes else 0)
        self.layers = nn.Sequential(
            nn.Linear(source, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, channels * image_size**2),
        )

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, where there are classes, their indices (B,) -> (B, channels, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)
        return torch.tanh(self.layers(x).float()).unflatten(1, self.shape)


class DenseDiscriminator(nn.Module):
    """Image to one logit by three dense layers: (B, channels, S, S) and classes (B,) -> (B, 1).

    Args:
        image_size, width, channels, classes: as of `DenseGenerator`.
    """

    def __init__(self, image_size: int = 32, width: int = 256, channels: int = 2, classes: int = 0) -> None:
        super().__init__()
        self.embedding = class_embedding(classes, EMBEDDING)
        source = channels * image_size**2 + (EMBEDDING if classes else 0)
        self.hidden = nn.Sequential(
            nn.Linear(source, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE)
        )
        self.last = nn.Linear(width, 1)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Critique:
        """Images (B, channels, S, S) and, where there are classes, their indices (B,) -> logits (B, 1)."""
        x = image.flatten(1)
        if condition is not None:
            x = torch.cat([x, self.embedding(condition).to(x.dtype)], dim=1)
        features = self.hidden(x)
        return Critique([self.last(features)], [[features]])

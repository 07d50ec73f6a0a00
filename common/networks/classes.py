"""How a network takes the class of a whole image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassEmbedding(nn.Module):
    """A learned vector for each class; between two classes lies the mixture of their vectors.

    (B,) in 0..K-1 -> (B, size). 1.25 is three quarters of class 1 and a quarter of class 2: where classes
    have an order, as severities have, one can walk from one to the next.

    Args:
        classes: K.
        size: of the vectors; drawn from N(0, 1).
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(classes, size))

    def forward(self, index: Tensor) -> Tensor:
        """Class indices (B,), whole or between -> (B, size)."""
        places = torch.arange(self.table.shape[0], device=index.device)
        apart = (index.to(self.table.dtype).reshape(-1, 1) - places).abs()  # (B, K)
        return (1 - apart).clamp_min(0) @ self.table


class NoClasses(nn.Module):
    """In the place of an embedding where there are no classes: (B,) -> (B, 0)."""

    def forward(self, index: Tensor) -> Tensor:
        """Class indices (B,) -> (B, 0)."""
        return torch.empty(index.shape[0], 0, device=index.device)


def class_embedding(classes: int, size: int) -> nn.Module:
    """A `ClassEmbedding`, or nothing for 0 classes."""
    return ClassEmbedding(classes, size) if classes else NoClasses()


def class_projection(classes: int, size: int) -> nn.Module:
    """Vectors by which a discriminator judges the class: (B,) -> (B, size); nothing for 0 classes.

    Their product with ``size`` features is added to the logit (Miyato and Koyama 2018). They begin at about
    unit length: as long as the embeddings are, sqrt(size), the product would drown the logit.
    """
    made = class_embedding(classes, size)
    if isinstance(made, ClassEmbedding):
        nn.init.normal_(made.table, std=size**-0.5)
    return made

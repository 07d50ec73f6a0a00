"""Generated images of earlier iterations: a discriminator forgets less (Shrivastava et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.random import generator
from common.training import distributed


class ImagePool:
    """A history of generated images: a discriminator is shown half of them old (Zhu et al. 2017, section 4).

    While the pool is not full, each image goes in and is shown. After that each is shown with probability one
    half; else it takes the place of a drawn one, and that one is shown. What is drawn for the k-th image of a
    process follows from (seed, name, rank, k) alone.

    Args:
        size: images in the pool; 0 shows the new ones always.
        seed: the run's seed.
        name: tells two pools of a run apart.
    Raises:
        UserError: a negative size.
    """

    def __init__(self, size: int = 50, seed: int = 0, name: str = "pool") -> None:
        if size < 0:
            raise UserError(f"pool_size {size}: give 0 for no pool, or the number of images")
        self.size, self.seed, self.name = size, seed, name
        self.images: list[Tensor] = []
        self.seen = 0

    def query(self, images: Tensor) -> Tensor:
        """Takes new images (B, C, H, W), without gradients, and gives as many to show."""
        if self.size == 0:
            return images
        return torch.stack([self._exchange(image) for image in images.detach()])

    def _exchange(self, image: Tensor) -> Tensor:
        draw = generator(self.seed, self.name, distributed.rank(), self.seen)
        self.seen += 1
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if draw.random() < 0.5:
            return image
        place = int(draw.integers(self.size))
        old, self.images[place] = self.images[place], image.clone()
        return old.to(image.device)

    def state_dict(self) -> dict[str, Any]:
        """The images of every process and how many it has seen. A collective call: all processes make it."""
        kept = [image.cpu().contiguous() for image in self.images]
        return {"ranks": distributed.gather({"images": kept, "seen": self.seen})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``."""
        own = state["ranks"][distributed.rank()]
        self.images, self.seen = list(own["images"]), int(own["seen"])

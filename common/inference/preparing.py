"""What MONAI's evaluators feed a generator: a mask or noise as input, the real CT as target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.inference.latents import latents


def mask_to_image(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor | None]:
    """A ``prepare_batch``: label (B, C, H, W) in, image (B, 1, H, W) in [-1, 1] as target (None without)."""
    image = batch.get("image")
    target = None if image is None else image.to(device, non_blocking=non_blocking)
    return batch["label"].to(device, non_blocking=non_blocking), target


class LatentToImage:
    """A ``prepare_batch`` for unconditional nets: noise (B, size) in, the batch's real images as target.

    The noise belongs to the batch's ``sample`` numbers, see `common.inference.latents.latents`: it is the
    same in every pass, so that two validations differ by the network alone. The real images are company, not
    truth: metrics may compare the sets, never image by image.

    Args:
        size: of a latent.
        seed: of the noise.
        classes: feed the batch's ``class`` too.
    """

    def __init__(self, size: int, seed: int = 0, classes: bool = False) -> None:
        self.size, self.seed, self.classes = size, seed, classes

    def __call__(
        self,
        batch: dict[str, Any],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **_options: Any,
    ) -> tuple[Any, ...]:
        noise = latents(self.seed, torch.as_tensor(batch["sample"]).tolist(), self.size).to(device)
        image = batch.get("image")
        target = None if image is None else image.to(device, non_blocking=non_blocking)
        if not self.classes:
            return noise, target
        return noise, target, (batch["class"].to(device, non_blocking=non_blocking),), {}

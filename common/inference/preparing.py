"""What MONAI's evaluators feed a conditional generator: the mask as input, the CT as target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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

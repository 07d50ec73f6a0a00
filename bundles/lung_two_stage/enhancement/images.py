"""Between HU and what the enhancer sees."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.intensity import Window, from_network, to_network, to_unit


def to_images(hu: NDArray[np.int16], window: Window) -> Tensor:
    """HU (N, H, W) -> (N, 1, H, W) float32 in [-1, 1], clipped to the window."""
    return torch.from_numpy(to_network(to_unit(hu, window, is_hu=True)))[:, None]


def to_changed_hu(images: Tensor, before: NDArray[np.int16], window: Window) -> NDArray[np.int16]:
    """Enhanced images (N, 1, H, W) in [-1, 1] as HU (N, H, W) int16.

    The network sees the window only. What an image had above or below it (bone, the air around a patient) is
    added again, so that an unchanged image comes back as it was.

    Args:
        before: HU (N, H, W) of the images that the network was given.
    """
    inside = np.clip(before.astype(np.float32), window.lower, window.upper)
    unit = from_network(images[:, 0].float().cpu().numpy())
    hu = unit.astype(np.float64) * window.width + window.lower + (before - inside)
    return np.rint(hu).clip(-32768, 32767).astype(np.int16)

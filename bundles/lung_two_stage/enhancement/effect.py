"""What the enhancer changes, and the plainest change of equal strength to compare it with: noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from bundles.lung_two_stage.composition.patches import make_noise
from common.data.lung_segmentation import segment_lung_slice
from common.errors import UserError
from common.rng import make_rng

BLUR = 1.5
"""Standard deviation in pixels of the Gaussian after which a change counts: mere grain does not."""
LEAST_HU = 20.0


def lungs_of(hu: NDArray[np.int16], spacing_mm: float) -> NDArray[np.bool_]:
    """Where the lungs are in slices (N, H, W), nodules included; nowhere in those that show none."""
    found = np.zeros(hu.shape, bool)
    for place, values in enumerate(hu):
        try:
            found[place] = segment_lung_slice(values, spacing_mm) > 0
        except UserError:
            continue
    return found


def changed_share(
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    lungs: NDArray[np.bool_],
    blur: float = BLUR,
    least: float = LEAST_HU,
) -> float:
    """Share of the lungs' pixels that changed by more than ``least`` HU, once the change was blurred.

    Args:
        before, after: HU (N, H, W).
        lungs: (N, H, W).
    Returns:
        NaN without lungs.
    """
    change = after.astype(np.float32) - before.astype(np.float32)
    smooth = np.stack([gaussian_filter(each, blur, mode="nearest") for each in change])
    return float((np.abs(smooth)[lungs] > least).mean()) if lungs.any() else float("nan")


def with_equal_noise(before: Tensor, after: Tensor, seed: int = 0) -> Tensor:
    """The images ``before`` with noise as strong as the change, image by image: (N, 1, H, W) in [-1, 1].

    Its root mean square is that of ``after - before``; it has the grain of CT, see
    `bundles.lung_two_stage.composition.patches.make_noise`. Where a network does no better than this, it has
    learned to add grain.
    """
    strength = (after - before).square().mean((1, 2, 3), keepdim=True).sqrt()
    side = max(before.shape[-2:])
    fields = [make_noise(make_rng(seed, "equal noise", n), side) for n in range(len(before))]
    noise = torch.from_numpy(np.stack(fields))[:, None, : before.shape[-2], : before.shape[-1]]
    return (before + strength * noise).clamp(-1, 1)

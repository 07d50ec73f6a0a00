"""Lesion faithfulness: is the lesion drawn where the mask says, as strongly as in the real image?

The contrast of a lesion is the mean of the darker half of its pixels minus the mean of the darker half of a
ring around it. Lesions often touch the chest wall; the darker half of the ring is lung, not the bright wall.
Since the darker half is taken of *both*, noise and texture cancel: the contrast of an image that ignores the
mask is 0 on average, whatever its noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RING_FRACTION = 1 / 16  # of the image's shorter side: width of the ring
GAP_FRACTION = 1 / 128  # of the image's shorter side: gap between lesion and ring, for partial volume
FEWEST_PIXELS = 4  # in lesion and ring; with fewer there is no contrast


def lesion_contrast(images: Tensor, labels: Tensor) -> Tensor:
    """Computes the contrast of each image's lesion.

    Args:
        images: (B, 1, H, W), any range; the contrast is in its units.
        labels: (B, C, H, W); lesion where any channel exceeds 0.5.
    Returns:
        (B,) float64; NaN where lesion or ring have fewer than ``FEWEST_PIXELS`` pixels.

    Example:
        >>> label = torch.zeros(1, 1, 32, 32)
        >>> label[..., 10:20, 10:20] = 1
        >>> lesion_contrast(label - 0.5, label).tolist()
        [1.0]
    """
    return region_contrasts([images], labels)[0]


@torch.inference_mode()
def region_contrasts(sets: Sequence[Tensor], labels: Tensor) -> Tensor:
    """`lesion_contrast` of several sets of images (B, 1, H, W) on the same labels: (sets, B) float64."""
    lesion = (labels > 0.5).any(1)  # (B, H, W)
    contrasts = torch.full((len(sets), len(labels)), math.nan, dtype=torch.float64)
    has = lesion.flatten(1).any(1).nonzero()[:, 0]
    for index, inside, around in zip(has, lesion[has], lesion_ring(lesion[has]), strict=True):
        for row, images in enumerate(sets):
            contrasts[row, index] = _contrast(images[index, 0].double(), inside, around)
    return contrasts


def lesion_ring(lesion: Tensor) -> Tensor:
    """Finds the surroundings of a lesion: (B, H, W) bool -> (B, H, W) bool."""
    side = min(lesion.shape[-2:])
    gap = max(1, round(side * GAP_FRACTION))
    width = max(2, round(side * RING_FRACTION))
    return _dilated(lesion, gap + width) & ~_dilated(lesion, gap)


def contrast_parts(generated: Tensor, real: Tensor) -> Tensor:
    """What each image adds to the sums of which the measures below are ratios.

    Args:
        generated, real: contrasts (N,), or (N, K) of K classes.
    Returns:
        (N, 3) or (N, K, 3) float64: |c_generated - c_real|, |c_real| and 1; zeros where the real contrast is
        NaN (no lesion).
    """
    missing = real.isnan()
    parts = torch.stack([(generated - real).abs(), real.abs(), (~missing).to(real)], dim=-1)
    return parts.double().masked_fill(missing[..., None], 0)


def faithfulness(sums: Tensor) -> float:
    """1 - sum |c_generated - c_real| / sum |c_real|.

    1: every lesion has the contrast of the real one. 0: as if no lesion were drawn. Below 0: worse than that.

    Args:
        sums: (3,) of `contrast_parts`.
    Returns:
        At most 1; NaN if no image has a lesion or a generated lesion holds NaN.

    Example:
        >>> faithfulness(contrast_parts(torch.tensor([0.5]), torch.tensor([1.0])).sum(0))
        0.5
    """
    return float(1 - sums[0] / sums[1])


def contrast_error(sums: Tensor) -> float:
    """Averages |c_generated - c_real| over images with a lesion, from the sums (3,) of `contrast_parts`.

    Example:
        >>> contrast_error(contrast_parts(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0])).sum(0))
        0.25
    """
    return float(sums[0] / sums[2])


def mean_faithfulness(sums: Tensor) -> float:
    """Computes the mean over classes of `faithfulness`.

    Negative values count as 0: a class that hardly stands out in the real images has a small denominator, and
    its large negative value would dominate the mean.

    Args:
        sums: (K, 3) of `contrast_parts`; classes that are in no image are left out.
    Returns:
        At most 1; NaN if no image has any class or a generated one holds NaN.

    Example:
        >>> mean_faithfulness(contrast_parts(torch.tensor([[0.5, 9.0]]), torch.tensor([[1.0, 1.0]])).sum(0))
        0.25
    """
    difference, size, _ = sums[sums[:, 1] > 0].T  # (classes present,) each
    return float((1 - difference / size).clamp_min(0).mean())


def _contrast(image: Tensor, inside: Tensor, around: Tensor) -> Tensor:
    lesion, surroundings = image[inside], image[around]
    if min(lesion.numel(), surroundings.numel()) < FEWEST_PIXELS:
        return image.new_tensor(float("nan"))
    return _darker_half(lesion) - _darker_half(surroundings)


def _darker_half(values: Tensor) -> Tensor:
    return values.sort().values[: (values.numel() + 1) // 2].mean()


def _dilated(lesion: Tensor, radius: int) -> Tensor:
    """Dilates by a square, in two passes, which is far faster than in one."""
    rows = F.max_pool2d(lesion[:, None].float(), (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), stride=1, padding=(0, radius))[:, 0] > 0.5

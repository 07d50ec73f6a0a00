"""SSIM, MS-SSIM, PSNR, MAE and MSE of pairs of images, one number per image, by MONAI's metrics.

Images lie in the network's range [-1, 1]. The luminance term of SSIM depends on where zero lies: SSIM is
computed on [0, 1], as in the papers (on [-1, 1] it is about 0.1 lower for the mean image of lung CT). PSNR
does not depend on it; MAE and MSE are in units of [-1, 1].
"""

from __future__ import annotations

import torch
from monai.metrics import MAEMetric, MSEMetric, MultiScaleSSIMMetric, PSNRMetric, SSIMMetric
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from torch.nn import functional as F

DATA_RANGE = 2.0  # images lie in [-1, 1]
UNIT_RANGE = 1.0  # and in [0, 1] for SSIM
MS_SSIM_SMALLEST = 161  # four halvings and an 11-pixel window (Wang et al. 2003)
SSIM_SMALLEST = SSIM_WINDOW = 11  # pixels, a Gaussian of 1.5 pixels
LARGEST_PSNR = 100.0  # dB; instead of infinity for identical images, so that means stay finite


def ssim(pred: Tensor, real: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of (B, 1, H, W) images in [-1, 1]: (B,), at most 1.

    Example:
        >>> dark, bright = torch.full((1, 1, 16, 16), -0.5), torch.full((1, 1, 16, 16), 0.5)
        >>> round(ssim(dark, bright).item(), 2)  # gray levels 0.25 and 0.75 of [0, 1]
        0.6
    """
    return _each(SSIMMetric(2, data_range=UNIT_RANGE)(_unit(pred), _unit(real)))


def ssim_map(pred: Tensor, real: Tensor) -> Tensor:
    """SSIM of each pixel: (B, 1, H, W) in [-1, 1] -> (B, 1, H, W); images are mirrored at their border.

    `ssim` is its mean without a border of half a window.
    """
    border = [SSIM_WINDOW // 2] * 4
    pred, real = (F.pad(_unit(images.float()), border, mode="reflect") for images in (pred, real))
    window, sigma = [SSIM_WINDOW] * 2, [1.5] * 2
    return torch.as_tensor(compute_ssim_and_cs(pred, real, 2, window, sigma, UNIT_RANGE)[0])


def ms_ssim(pred: Tensor, real: Tensor) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003) of images larger than 160 pixels: (B,), at most 1.

    A scale on which the images disagree in sign counts as 0.
    """
    return _each(MultiScaleSSIMMetric(2, data_range=UNIT_RANGE)(_unit(pred), _unit(real)))


def psnr(pred: Tensor, real: Tensor) -> Tensor:
    """Computes the peak signal-to-noise ratio in dB of images in [-1, 1]: (B,), at most 100."""
    return _each(PSNRMetric(DATA_RANGE)(pred, real)).clamp_max(LARGEST_PSNR)


def mae(pred: Tensor, real: Tensor) -> Tensor:
    """Computes the mean absolute error in network units (2 = the whole window): (B,)."""
    return _each(MAEMetric()(pred, real))


def mse(pred: Tensor, real: Tensor) -> Tensor:
    """Computes the mean squared error in squared network units: (B,)."""
    return _each(MSEMetric()(pred, real))


@torch.inference_mode()
def image_metrics(pred: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Computes every metric of this module that the image size allows.

    Args:
        pred, real: (B, 1, H, W) in [-1, 1].
    Returns:
        name -> (B,) float32; ``ms_ssim`` only if both sides exceed 160 pixels.

    Example:
        >>> images = torch.zeros(1, 1, 16, 16)
        >>> image_metrics(images, images + 0.5)["mae"].tolist()
        [0.5]
    """
    pred, real = pred.float(), real.float()
    chosen = {"psnr": psnr, "mae": mae, "mse": mse}
    smallest = min(real.shape[-2:])
    if smallest >= SSIM_SMALLEST:
        chosen = {"ssim": ssim, **chosen}
    if smallest >= MS_SSIM_SMALLEST:
        chosen = {"ms_ssim": ms_ssim, **chosen}
    return {name: metric(pred, real) for name, metric in chosen.items()}


def _unit(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1]."""
    return (images + 1) / 2


def _each(values: object) -> Tensor:
    """MONAI's (B, 1) as (B,)."""
    return torch.as_tensor(values).flatten()

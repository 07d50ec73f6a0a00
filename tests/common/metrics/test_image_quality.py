from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from common.metrics.image_quality import image_metrics, mae, ms_ssim, mse, psnr, ssim, ssim_map


def pair(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = np.random.default_rng(0)
    real = torch.from_numpy(numbers.uniform(0, 1, (3, 1, size, size)).astype(np.float32))
    shift = torch.tensor([0.0, 0.1, 0.5])[:, None, None, None]
    return real * 0.5 + shift, real * 0.5


def test_errors_and_psnr_by_hand() -> None:
    pred, real = pair()
    assert mae(pred, real).tolist() == pytest.approx([0, 0.1, 0.5], abs=1e-6)
    assert mse(pred, real).tolist() == pytest.approx([0, 0.01, 0.25], abs=1e-6)
    expected = [100, 10 * math.log10(4 / 0.01), 10 * math.log10(4 / 0.25)]  # the range 2 squared is 4
    assert psnr(pred, real).tolist() == pytest.approx(expected, abs=1e-3)


def test_ssim_agrees_with_another_implementation() -> None:
    pred, real = pair()
    noisy = (pred + 0.2 * torch.randn(pred.shape)).clamp(-1, 1)
    unit = [((images[:, 0] + 1) / 2).double().numpy() for images in (noisy, real)]
    full = [
        structural_similarity(
            a, b, data_range=1, gaussian_weights=True, use_sample_covariance=False, full=True
        )[1][5:-5, 5:-5].mean()
        for a, b in zip(*unit, strict=True)
    ]
    assert ssim(noisy, real).tolist() == pytest.approx(full, abs=1e-4)


def test_ssim_of_flat_images_by_hand() -> None:
    """Grey levels 0.25 and 0.75 of [0, 1]: (2 a b + c) / (a^2 + b^2 + c), c = 0.01^2; on [-1, 1]: -1."""
    dark, bright = torch.full((1, 1, 176, 176), -0.5), torch.full((1, 1, 176, 176), 0.5)
    wanted = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(ssim(dark, bright)) == pytest.approx(wanted, abs=1e-3)
    assert float(ssim_map(dark, bright).mean()) == pytest.approx(wanted, abs=1e-3)
    assert float(ms_ssim(dark, bright)) == pytest.approx(wanted**0.1333, abs=1e-3)


def test_ssim_falls_with_the_shift() -> None:
    pred, real = pair()
    values = ssim(pred, real)
    assert values[0] == pytest.approx(1, abs=1e-5) and values[0] > values[1] > values[2]


def test_ms_ssim_needs_and_gets_large_images() -> None:
    pred, real = pair(176)
    values = ms_ssim(pred, real)
    assert (
        values.shape == (3,) and values[0] == pytest.approx(1, abs=1e-5) and values[0] > values[1] > values[2]
    )
    assert list(image_metrics(pred, real)) == ["ms_ssim", "ssim", "psnr", "mae", "mse"]


def test_small_images_get_what_their_size_allows() -> None:
    assert list(image_metrics(*pair(160))) == ["ssim", "psnr", "mae", "mse"]
    assert list(image_metrics(*pair(8))) == ["psnr", "mae", "mse"]
    assert all(value.shape == (3,) for value in image_metrics(*pair(32)).values())


def test_half_precision_predictions_are_measured_in_float32() -> None:
    pred, real = pair()
    assert image_metrics(pred.half(), real)["mse"].dtype == torch.float32

"""One number that chooses the best checkpoint: realism (FID) and lesion faithfulness in equal parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.metrics import Metric
from torch import Tensor

from common.metrics.features import FeatureExtractor
from common.metrics.fid import frechet_distance
from common.metrics.ignite_metrics import (
    Batch,
    FrechetDistance,
    LesionFaithfulness,
    as_given,
    batched,
    joined,
    summed,
)


def leading_score(fid: float, mean_image_fid: float, faithfulness: float) -> float:
    """(1 - FID / FID of the mean image + faithfulness) / 2: 1 for the real images, 0 for their mean image."""
    return (1 - fid / mean_image_fid + faithfulness) / 2


class LeadingScore(Metric):
    """`leading_score` of one validation pass. Higher is better, so MONAI's default comparison fits.

    The mean image is that of the pass's real images; its features cost one image a pass.

    Args:
        extractor: features for FID.
        output_transform: engine output -> (pred, image, label).
        device: where features are computed.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.frechet = FrechetDistance(extractor, device=device)
        self.faithfulness = LesionFaithfulness(device=device)
        super().__init__(output_transform, device=device)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.frechet.reset()
        self.faithfulness.reset()
        self.pixel_sum: Tensor | None = None  # (1, 1, H, W) float64

    def update(self, output: Batch) -> None:
        """Adds a batch."""
        self.frechet.update(output)
        self.faithfulness.update(output)
        pixels = batched(output[1]).cpu().sum(0, keepdim=True, dtype=torch.float64)
        self.pixel_sum = pixels if self.pixel_sum is None else self.pixel_sum + pixels

    def compute(self) -> float:
        """The score over all processes; 0 where nothing was seen."""
        if self.pixel_sum is None:
            return 0.0
        return leading_score(self.frechet.compute(), self._mean_image_fid(), self.faithfulness.compute())

    def _mean_image_fid(self) -> float:
        """The FID of predictions that are all the mean image: their features are one point without spread."""
        assert self.pixel_sum is not None
        real = joined(self.frechet.real)
        image = summed(self.pixel_sum) / real.count
        point = self.frechet.extractor(image.float().to(self._device))[0].double().cpu()  # (D,)
        return frechet_distance(real.mean, real.covariance, point, torch.zeros_like(real.covariance))

from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.metrics.features import extract, extractor_by_name


class Mean:
    """Features one can compute in one's head: mean and maximum."""

    name = "mean"
    dimension = 2

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], dim=1)


def test_names() -> None:
    extractor = extractor_by_name("randvgg")
    assert extractor.name == "randvgg"
    with pytest.raises(UserError, match="'vgg' is unknown; choose one of randvgg, inception, radimagenet"):
        extractor_by_name("vgg")


def test_batches_do_not_change_the_features() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 2, 2) / 5
    features = extract(Mean(), images, batch_size=2)
    assert features.tolist() == [[pytest.approx(i / 5), pytest.approx(i / 5)] for i in range(5)]
    assert extract(Mean(), images[:0]).shape == (0, 2)

from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.metrics.features import choosing_extractor, extract, extractor_by_name


class Mean:
    """Features one can compute in one's head: mean and maximum."""

    name = "mean"
    dimension = 2

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], dim=1)


def test_names() -> None:
    assert [extractor_by_name(name).name for name in ("gridvgg", "randvgg")] == ["gridvgg", "randvgg"]
    names = "gridvgg, lite0, inception, radimagenet, randvgg"
    with pytest.raises(UserError, match=f"'vgg' is unknown; choose one of {names}"):
        extractor_by_name("vgg")


def test_an_extractor_blind_to_layout_chooses_no_checkpoint() -> None:
    assert choosing_extractor("gridvgg").sees_layout is True
    with pytest.raises(UserError, match=r"randvgg is blind to layout and cannot choose .* gridvgg or lite0"):
        choosing_extractor("randvgg")


def test_batches_do_not_change_the_features() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 2, 2) / 5
    features = extract(Mean(), images, batch_size=2)
    assert features.tolist() == [[pytest.approx(i / 5), pytest.approx(i / 5)] for i in range(5)]
    assert extract(Mean(), images[:0]).shape == (0, 2)

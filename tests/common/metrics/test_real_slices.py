"""What the metrics say about real lung CT: the mean image wins on SSIM and loses on what leads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.image_io import read_mask, read_pixels
from common.data.layouts import find_samples
from common.data.samples import Sample
from common.data.slice_geometry import resize_image, resize_mask
from common.data.splits import split_by_patient
from common.metrics.baselines import baseline_predictions
from common.metrics.evaluate import Evaluator, Value
from common.metrics.features import extractor_by_name

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
SIZE = 64


def loaded(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, list[str]]:
    images = [resize_image(read_pixels(sample).values, SIZE, SIZE) for sample in samples]
    masks = [resize_mask(read_mask(sample), SIZE, SIZE).astype(np.float32) for sample in samples]
    unit = torch.from_numpy(np.stack(images)[:, None]).float()
    unit = unit / 255 if unit.max() > 1 else unit
    return unit * 2 - 1, torch.from_numpy(np.stack(masks)[:, None]), [sample.patient for sample in samples]


@pytest.fixture(scope="module")
def values(shared_data: Path) -> dict[str, dict[str, Value]]:
    folder = shared_data / "covid_lesions" / "pseudo"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    parts = split_by_patient(find_samples(folder), (0.7, 0.1, 0.2), seed=0)
    train = loaded(parts["train"][::3])
    test = loaded(parts["test"][::2])
    evaluator = Evaluator(test[0], test[1], extractor_by_name("gridvgg"), test[2], resamples=20)
    predictions = baseline_predictions(*train, test[1], test[2])
    predictions["blurred"] = F.avg_pool2d(F.pad(test[0], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    predictions["itself"] = test[0]
    return {name: evaluator(images) for name, images in predictions.items()}


def means(values: dict[str, dict[str, Value]], metric: str) -> dict[str, float]:
    return {name: found[metric].mean for name, found in values.items()}


def test_kid_puts_real_slices_far_before_the_mean_image(values: dict[str, dict[str, Value]]) -> None:
    found = means(values, "kid_gridvgg")
    assert found["itself"] == pytest.approx(0, abs=1e-6)
    assert 0 < found["blurred"] < found["mean_image"] / 3
    assert found["real_real"] < found["mean_image"] / 3 and found["nearest_mask"] < found["mean_image"] / 1.5


def test_faithfulness_sees_the_mask(values: dict[str, dict[str, Value]]) -> None:
    found = means(values, "lesion_faithfulness")
    assert found["itself"] == 1 and found["blurred"] > 0.5
    assert abs(found["mean_image"]) < 0.2 and found["real_real"] < 0.2
    assert found["nearest_mask"] > found["mean_image"] + 0.1


def test_ssim_prefers_the_mean_image_to_another_real_one(values: dict[str, dict[str, Value]]) -> None:
    found = means(values, "ssim")
    assert 0.25 < found["mean_image"] < 0.55 and found["mean_image"] > found["real_real"]

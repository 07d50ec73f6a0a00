from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.metrics.evaluation import Evaluator, better, evaluate_with_baselines
from common.metrics.randvgg import RandomVGG


def slices(count: int = 14, size: int = 32) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Bright square lesions on noisy dark lungs; two slices a patient; the last has no lesion."""
    numbers = np.random.default_rng(8)
    images = torch.from_numpy(numbers.normal(-0.7, 0.1, (count, 1, size, size)).astype(np.float32))
    labels = torch.zeros_like(images)
    for label, (top, left) in zip(labels[:-1], numbers.integers(8, 18, (count - 1, 2)), strict=True):
        label[0, top : top + 6, left : left + 6] = 1
    images = (images + labels).clamp(-1, 1)
    return images, labels, [f"p{index // 2}" for index in range(count)]


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    images, labels, patients = slices()
    return Evaluator(images, labels, RandomVGG(), patients, seed=1, resamples=60)


def test_the_real_images_are_perfect(evaluator: Evaluator) -> None:
    values = evaluator(evaluator.images)
    names = ["fid_randvgg", "kid_randvgg", "lesion_faithfulness", "lesion_contrast_error"]
    assert list(values) == [*names, "ssim", "psnr", "mae", "mse"]
    assert values["fid_randvgg"].mean == pytest.approx(0, abs=1e-6) and values["mae"].mean == 0
    assert values["lesion_faithfulness"].mean == 1 and values["lesion_faithfulness"].n == 13
    assert values["ssim"].mean == pytest.approx(1) and values["ssim"].n == 14


def test_intervals_hold_their_values_and_repeat(evaluator: Evaluator) -> None:
    predictions = evaluator.images.roll(1, 0)
    values = evaluator(predictions)
    for name, value in values.items():
        assert value.low <= value.mean <= value.high, name
    assert values["mae"].low < values["mae"].high
    assert evaluator(predictions) == values


def test_metrics_see_different_faults(evaluator: Evaluator) -> None:
    lesionless = torch.where(evaluator.labels > 0, evaluator.images - 1, evaluator.images)
    smooth = torch.where(evaluator.labels > 0, 0.3, torch.full_like(evaluator.images, -0.7))
    without, flat = evaluator(lesionless), evaluator(smooth)
    assert abs(without["lesion_faithfulness"].mean) < 0.1 and flat["lesion_faithfulness"].mean > 0.9
    assert flat["fid_randvgg"].mean > without["fid_randvgg"].mean > 0.5
    assert flat["mae"].mean > without["mae"].mean


def test_result_is_plain_and_every_value_has_its_baselines(evaluator: Evaluator) -> None:
    baselines = {"mean_image": evaluator.images.mean(0, keepdim=True).expand_as(evaluator.images)}
    result = evaluate_with_baselines(evaluator, evaluator.images, baselines)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["leading"] == ["fid_randvgg", "lesion_faithfulness"]
    metric = result["metrics"]["fid_randvgg"]
    assert set(metric) == {"mean", "interval", "n", "better", "baselines"}
    assert metric["baselines"]["mean_image"]["mean"] > metric["mean"] and metric["n"] == 14
    assert {name: entry["better"] for name, entry in result["metrics"].items()} == {
        "fid_randvgg": "lower",
        "kid_randvgg": "lower",
        "lesion_faithfulness": "higher",
        "lesion_contrast_error": "lower",
        "ssim": "higher",
        "psnr": "higher",
        "mae": "lower",
        "mse": "lower",
    }
    assert better("ms_ssim") == "higher"


def test_a_set_without_lesions_has_no_faithfulness() -> None:
    images, labels, _ = slices(4)
    values = Evaluator(images, labels * 0, RandomVGG(), resamples=5)(images)
    assert values["lesion_faithfulness"].plain() == {"mean": None, "interval": [None, None], "n": 0}


def test_one_image_is_too_few() -> None:
    images, labels, _ = slices(1)
    with pytest.raises(UserError, match="1 test images are too few"):
        Evaluator(images, labels, RandomVGG())


def test_broken_predictions_never_look_good(evaluator: Evaluator) -> None:
    broken = evaluator.images.clone()
    broken[3] = torch.nan
    values = evaluator(broken)
    assert [name for name, value in values.items() if value.plain()["mean"] is not None] == []

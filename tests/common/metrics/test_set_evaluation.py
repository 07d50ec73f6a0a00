from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics.bootstrap import Value
from common.metrics.set_evaluation import RealImages, SetEvaluator, better, evaluate_set

METRICS = [
    "fid_places",
    "kid_places",
    "excess_kid_places",
    "precision",
    "recall",
    "density",
    "coverage",
    "pair_ssim",
    "pair_distance",
    "modes",
    "log_likelihood",
    "copies_by_features",
    "copies_by_pixels",
]


class Places:
    """Where the bright spot lies, as two features."""

    name = "places"
    dimension = 2

    def __call__(self, images: Tensor) -> Tensor:
        weights = (images[:, 0] + 1).clamp_min(0)  # (B, 16, 16)
        line = torch.arange(16.0)
        total = weights.sum((1, 2)).clamp_min(1e-6)
        return torch.stack([(weights.sum(axis) @ line) / total for axis in (2, 1)], dim=1)


def spots(count: int, seed: int, spread: float = 3.0) -> Tensor:
    """A bright spot on black, at a place drawn around the middle, with a little noise."""
    numbers = np.random.default_rng(seed)
    places = torch.from_numpy(numbers.normal(7.5, spread, (count, 2))).float().clamp(1, 14)
    line = torch.arange(16.0)
    rows, columns = ((line - places[:, [axis]]) ** 2 for axis in (0, 1))
    noise = torch.from_numpy(numbers.normal(0, 0.01, (count, 16, 16))).float()
    spot = torch.exp(-(rows[:, :, None] + columns[:, None]) / 4)
    return (2 * spot - 1 + noise).clamp(-1, 1)[:, None]


@pytest.fixture(scope="module")
def evaluator() -> SetEvaluator:
    patients = [f"p{index // 2}" for index in range(40)]
    real = RealImages(
        spots(40, 0), patients, spots(30, 1), spots(60, 2), [f"t{index}" for index in range(60)]
    )
    return SetEvaluator(real, Places(), seed=1, resamples=40)


def test_a_sound_generator_and_a_collapsed_one(evaluator: SetEvaluator) -> None:
    sound, collapsed = evaluator(spots(50, 3)).values, evaluator(spots(50, 3, 0.01)).values
    assert list(sound) == METRICS
    assert sound["fid_places"].mean < 1.5 < 8 < collapsed["fid_places"].mean
    assert collapsed["precision"].mean > 0.9 and collapsed["recall"].mean < 0.1 < 0.5 < sound["recall"].mean
    assert collapsed["coverage"].mean < 0.4 < 0.8 < sound["coverage"].mean
    assert collapsed["pair_ssim"].mean > 0.8 > sound["pair_ssim"].mean
    assert collapsed["pair_distance"].mean < 0.1 < 3 < sound["pair_distance"].mean
    assert collapsed["modes"].mean < 2 < 50 < sound["modes"].mean
    assert collapsed["log_likelihood"].mean < sound["log_likelihood"].mean
    assert sound["copies_by_pixels"].mean < 0.3


def test_copies_are_found(evaluator: SetEvaluator) -> None:
    copies = evaluator(evaluator.real.training[:50]).values
    assert copies["copies_by_pixels"].mean == copies["copies_by_features"].mean == 1


def test_intervals_hold_their_values_and_repeat(evaluator: SetEvaluator) -> None:
    images = spots(50, 3)
    found = evaluator(images)
    for name, value in found.values.items():
        assert name in ("modes", "excess_kid_places") or value.low <= value.mean <= value.high, name
    assert found.values["fid_places"].n == 50 and found.values["coverage"].n == 40
    again = evaluator(images, evaluator.extract(images))
    assert again == found


def test_the_result_is_plain_with_every_value_beside_its_baselines(evaluator: SetEvaluator) -> None:
    result = evaluate_set(evaluator, spots(50, 3))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["leading"] == ["fid_places", "coverage"] and list(result["metrics"]) == METRICS
    beside = {
        name: {key: value["mean"] for key, value in entry["baselines"].items()}
        for name, entry in result["metrics"].items()
    }
    assert beside["fid_places"]["real_real"] < 1.5 < beside["fid_places"]["mean_image"]
    assert beside["fid_places"]["blurred_real"] is None
    assert beside["excess_kid_places"]["real_real"] == pytest.approx(0, abs=1e-9)
    assert beside["excess_kid_places"]["blurred_real"] == pytest.approx(1)
    assert (
        beside["pair_ssim"]["mean_image"] == pytest.approx(1) and beside["pair_distance"]["mean_image"] == 0
    )
    assert beside["copies_by_pixels"]["real_real"] == pytest.approx(0.05, abs=0.03)
    assert result["metrics"]["coverage"]["baselines"]["real_real"]["n"] == 40
    assert result["metrics"]["precision"]["baselines"]["real_real"]["n"] == 50
    assert set(result["details"]) == {"model", "mean_image", "real_real", "blurred_real"}
    assert result["details"]["model"]["bandwidth"] > 0


def test_slices_of_one_generated_volume_are_one_cluster(evaluator: SetEvaluator) -> None:
    """Five volumes of ten slices that are all but alike: no more than five images' worth of evidence."""
    images = spots(5, 3).repeat_interleave(10, 0) + 0.01 * torch.randn(50, 1, 16, 16)
    volumes = [f"v{index // 10}" for index in range(50)]
    slices, whole = evaluator(images).values, evaluator(images, None, volumes).values
    assert whole["kid_places"].patients == 5 and slices["kid_places"].patients == 20

    def width(value: Value) -> float:
        return value.high - value.low

    assert width(whole["precision"]) >= width(slices["precision"])
    assert width(whole["kid_places"]) > 1.5 * width(slices["kid_places"])
    assert whole["pair_distance"].mean > slices["pair_distance"].mean


def test_what_is_better() -> None:
    assert [
        better(name) for name in ("fid_x", "copies_by_pixels", "coverage", "log_likelihood", "modes")
    ] == [
        "lower",
        "lower",
        "higher",
        "higher",
        "as real",
    ]

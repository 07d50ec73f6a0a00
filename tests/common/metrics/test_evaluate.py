from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.evaluate import (
    BLURRED,
    Evaluator,
    RealImages,
    SetEvaluator,
    better,
    evaluate_set,
    evaluate_with_baselines,
    format_number,
    metrics_table,
    structures_table,
)
from common.metrics.features import RandomVGG
from common.metrics.kid import FeatureSet, KernelDistances, gaussian_blur
from common.rng import make_rng


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
    names += ["recall", "coverage", "texture_correlation"]
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
    assert set(metric) == {"mean", "interval", "n", "patients", "better", "baselines"}
    assert metric["patients"] == 7
    assert metric["baselines"]["mean_image"]["mean"] > metric["mean"] and metric["n"] == 14
    best = {name: entry["better"] for name, entry in result["metrics"].items()}
    assert [name for name, way in best.items() if way == "lower"] == [
        *("fid_randvgg", "kid_randvgg", "lesion_contrast_error", "mae", "mse")
    ]
    assert [name for name, way in best.items() if way == "as real"] == ["texture_correlation"]
    assert better("ms_ssim") == better("log_likelihood") == "higher"
    assert better("copies_by_pixels") == "lower" and better("modes") == "as real"


def test_a_set_without_lesions_has_no_faithfulness() -> None:
    images, labels, _ = slices(4)
    values = Evaluator(images, labels * 0, RandomVGG(), resamples=5)(images)
    nothing = {"mean": None, "interval": None, "n": 0, "patients": None}
    assert values["lesion_faithfulness"].plain() == nothing


def test_one_image_is_too_few() -> None:
    images, labels, _ = slices(1)
    with pytest.raises(UserError, match="1 test images are too few"):
        Evaluator(images, labels, RandomVGG())


def test_broken_predictions_never_look_good(evaluator: Evaluator) -> None:
    broken = evaluator.images.clone()
    broken[3] = torch.nan
    values = evaluator(broken)
    assert [name for name, value in values.items() if value.plain()["mean"] is not None] == []


def test_diversity_is_measured_over_patients(evaluator: Evaluator) -> None:
    """The same image for all masks reaches nobody; the same noise in all is seen in the texture."""
    numbers = np.random.default_rng(1)
    drawn = torch.from_numpy(numbers.normal(-0.7, 0.1, evaluator.images.shape)).float()
    fresh = evaluator(drawn + evaluator.labels)
    same = evaluator(drawn[:1] + evaluator.labels)
    assert fresh["recall"].mean > 0.7 and fresh["coverage"].mean > 0.7
    assert abs(fresh["texture_correlation"].mean) < 0.05 < 0.5 < same["texture_correlation"].mean
    assert same["recall"].mean < fresh["recall"].mean and fresh["recall"].patients == 7


def test_an_own_patient_s_image_reaches_nobody(evaluator: Evaluator) -> None:
    """Copies of the real images are no sign of diversity: each is left out of its own patient's places."""
    far = evaluator.images.clone()
    far[:2] = torch.linspace(-1, 1, 32).expand(2, 1, 32, 32)  # one patient looks like nobody else
    found = Evaluator(far, evaluator.labels, Steps(), [f"p{k // 2}" for k in range(14)], resamples=20)
    assert found(far)["recall"].mean <= 12 / 14


class Steps:
    """How far neighbouring pixels are apart in four quarters, and the brightness there."""

    name = "steps"
    dimension = 8

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        steps = images.diff(dim=3, append=images[..., -1:]).abs() * 10
        pooled = [torch.nn.functional.adaptive_avg_pool2d(each, 2).flatten(1) for each in (steps, images)]
        return torch.cat(pooled, dim=1)


def test_flat_images_have_no_excess_kid(caplog: pytest.LogCaptureFixture) -> None:
    """Blurred or not they are the same: no quotient of two rounding errors."""
    patients = [f"p{place // 2}" for place in range(12)]
    for seed in range(8):
        numbers = make_rng(seed, "flat")
        flat = numbers.normal(size=(1, 8))
        parts = [torch.from_numpy(flat + 1e-7 * numbers.random((12, 8))) for _ in range(4)]
        drawn = [Resamples.draw(each, 12, 40, make_rng(0, "flat")) for each in (patients, None)]
        others = [f"q{name}" for name in patients]
        real, reference, fake = (
            FeatureSet(part, owners, drawn[owners is None])
            for part, owners in zip(parts, (patients, others, None), strict=False)
        )
        caplog.clear()
        found = KernelDistances(real, reference, parts[3])(fake)["excess_kid"]
        assert math.isnan(found.mean) and not found.bounded and "no excess KID" in caplog.text


def test_excess_kid_is_0_for_the_stand_in_and_1_for_blurred_images() -> None:
    images, labels, patients = slices(24)
    others = slices(48)[0][24:]
    owners = [f"other {index // 2}" for index in range(24)]
    found = Evaluator(images, labels, Steps(), patients, resamples=60, stand_in=(others, owners))
    result = evaluate_with_baselines(
        found,
        gaussian_blur(images, 2.0),
        {"real_real": others, BLURRED: gaussian_blur(images)},
        {"real_real": owners},
    )
    excess = result["metrics"]["excess_kid_steps"]
    beside = {name: value["mean"] for name, value in excess["baselines"].items()}
    assert beside == pytest.approx({"real_real": 0, BLURRED: 1}, abs=1e-9)
    kid = result["metrics"]["kid_steps"]
    model, real, blur = kid["mean"], *(kid["baselines"][name]["mean"] for name in beside)
    assert excess["mean"] == pytest.approx((model - real) / (blur - real)) and excess["mean"] > 1.1
    assert excess["interval"][0] < excess["mean"] < excess["interval"][1] and excess["better"] == "lower"


METRICS = [
    *("fid_places", "kid_places", "excess_kid_places", "precision", "recall", "density", "coverage"),
    *("pair_ssim", "pair_distance", "modes", "log_likelihood", "copies_by_features", "copies_by_pixels"),
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
def set_evaluator() -> SetEvaluator:
    patients = [f"p{index // 2}" for index in range(40)]
    real = RealImages(
        spots(40, 0), patients, spots(30, 1), spots(60, 2), [f"t{index}" for index in range(60)]
    )
    return SetEvaluator(real, Places(), seed=1, resamples=40)


def test_a_sound_generator_and_a_collapsed_one(set_evaluator: SetEvaluator) -> None:
    sound, collapsed = (set_evaluator(spots(50, 3, spread)).values for spread in (3.0, 0.01))
    assert list(sound) == METRICS
    assert sound["fid_places"].mean < 1.5 < 8 < collapsed["fid_places"].mean
    assert collapsed["precision"].mean > 0.9 and collapsed["recall"].mean < 0.1 < 0.5 < sound["recall"].mean
    assert collapsed["coverage"].mean < 0.4 < 0.8 < sound["coverage"].mean
    assert collapsed["pair_ssim"].mean > 0.8 > sound["pair_ssim"].mean
    assert collapsed["pair_distance"].mean < 0.1 < 3 < sound["pair_distance"].mean
    assert collapsed["modes"].mean < 2 < 50 < sound["modes"].mean
    assert collapsed["log_likelihood"].mean < sound["log_likelihood"].mean
    assert sound["copies_by_pixels"].mean < 0.3


def test_copies_are_found(set_evaluator: SetEvaluator) -> None:
    copies = set_evaluator(set_evaluator.real.training[:50]).values
    assert copies["copies_by_pixels"].mean == copies["copies_by_features"].mean == 1


def test_intervals_of_sets_hold_their_values_and_repeat(
    set_evaluator: SetEvaluator,
) -> None:
    images = spots(50, 3)
    found = set_evaluator(images)
    for name, value in found.values.items():
        assert name in ("modes", "excess_kid_places") or value.low <= value.mean <= value.high, name
    assert found.values["fid_places"].n == 50 and found.values["coverage"].n == 40
    again = set_evaluator(images, set_evaluator.extract(images))
    assert again == found


def test_the_result_is_plain_with_every_value_beside_its_baselines(
    set_evaluator: SetEvaluator,
) -> None:
    result = evaluate_set(set_evaluator, spots(50, 3))
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


def test_slices_of_one_generated_volume_are_one_cluster(set_evaluator: SetEvaluator) -> None:
    """Five volumes of ten slices that are all but alike: no more than five images' worth of evidence."""
    images = spots(5, 3).repeat_interleave(10, 0) + 0.01 * torch.randn(50, 1, 16, 16)
    volumes = [f"v{index // 10}" for index in range(50)]
    slices, whole = (set_evaluator(images, None, ids).values for ids in (None, volumes))
    assert whole["kid_places"].patients == 5 and slices["kid_places"].patients == 20

    def width(value: Value) -> float:
        return value.high - value.low

    assert width(whole["precision"]) >= width(slices["precision"])
    assert width(whole["kid_places"]) > 1.5 * width(slices["kid_places"])
    assert whole["pair_distance"].mean > slices["pair_distance"].mean


def result() -> dict[str, Any]:
    def entry(value: float | None, better: str, baseline: float) -> dict[str, Any]:
        beside = {"mean_image": {"mean": baseline, "interval": [0, 1], "n": 9}}
        found = {"mean": value, "interval": [1.0, 20.5], "n": 9, "patients": 12}
        return {**found, "better": better, "baselines": beside}

    metrics = {"fid_randvgg": entry(12.3456, "lower", 234.5), "ssim": entry(0.28, "higher", 0.3)}
    return {"extractor": "randvgg", "leading": ["fid_randvgg"], "metrics": metrics}


def test_table_shows_every_number_in_its_column() -> None:
    lines = metrics_table(result()).splitlines()
    assert lines[0].split() == ["metric", "model", "[95", "%", "interval]", "mean-image", "n", "patients"]
    assert lines[2].split()[:8] == ["fid_randvgg", "*", "12.35", "[1.000,", "20.50]", "234.5", "9", "12"]
    assert lines[2].endswith("12  lower is better") and lines[3].endswith("12  higher is better")
    assert len(lines) == 4 and metrics_table({"leading": [], "metrics": {}}).startswith("metric")
    assert [format_number(value) for value in (0.0, -0.01234, 12.3456)] == ["0.000", "-0.012", "12.35"]
    assert lines[2].index("234.5") + 5 == lines[3].index("0.300") + 5 == lines[0].index("mean-image") + 10


def test_few_patients_have_a_line_and_no_interval_a_dash() -> None:
    few = result()
    few["metrics"]["ssim"] |= {"patients": 2, "interval": None}
    *_, row, warning = metrics_table(few).splitlines()
    assert row.split()[:6] == ["ssim", "0.280", "[-]", "0.300", "9", "2"]
    assert warning.startswith("warning: only 2 patients: no intervals")


def test_structures_are_a_line_each_with_the_baselines_in_brackets() -> None:
    def entry(value: float | None, better: str, n: int = 9) -> dict[str, Any]:
        beside = {name: {"mean": mean} for name, mean in (("mean_image", 3.5), ("nearest_mask", 0.25))}
        return {"mean": value, "interval": [0, 1], "n": n, "better": better, "baselines": beside}

    def structure(value: float | None, n: int) -> dict[str, Any]:
        return {
            "fid_x": entry(value, "lower"),
            "mse": entry(value, "lower", n),
            "contrast_error": entry(7, "lower"),
        }

    lines = structures_table({"LV": structure(12.5, 40), "Ao": structure(None, 0)}).splitlines()
    assert lines[0].split() == ["structure", "fid_x", "lower", "mse", "lower", "n"]
    assert lines[2].split() == ["LV", "12.50", "(0.250,", "3.500)", "12.50", "(0.250,", "3.500)", "40"]
    assert lines[3].split()[1] == "-" and lines[3].split()[-1] == "0"
    assert lines[4].startswith("model (nearest-mask, mean-image)")

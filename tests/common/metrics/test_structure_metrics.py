from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics.fid import fid
from common.metrics.image_quality import ssim, ssim_map
from common.metrics.structure_metrics import (
    CROP_SIZE,
    StructureEvaluator,
    crop_box,
    structure_crops,
    structures_with_baselines,
)

NAMES = ["LV", "Ao", "PA"]


class Moments:
    """Mean and contrast of a crop as features."""

    name = "moments"
    dimension = 2

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], dim=1)


def slices(count: int = 6, size: int = 64) -> tuple[Tensor, Tensor]:
    """Noise about -0.8; LV (0.2) in all slices, Ao (-0.4) in all but the first two, PA in none."""
    numbers = np.random.default_rng(4)
    labels = torch.zeros(count, 1, size, size)
    labels[:, 0, 34:50, 8:30] = 1
    labels[2:, 0, 6:14, 40:52] = 2
    noise = torch.from_numpy(numbers.normal(0, 0.02, labels.shape).astype(np.float32))
    return -0.8 + noise + 1.0 * (labels == 1) + 0.4 * (labels == 2), labels


@pytest.fixture(scope="module")
def evaluator() -> StructureEvaluator:
    images, labels = slices()
    patients = ["a", "a", "a", "b", "b", "c"]
    return StructureEvaluator(images, labels, NAMES, Moments(), patients, resamples=50, batch_size=4)


def measured(evaluator: StructureEvaluator, drawn: Tensor) -> dict[str, dict[str, float]]:
    values = evaluator({"model": drawn})["model"][1]
    return {name: {metric: value.mean for metric, value in found.items()} for name, found in values.items()}


def test_the_real_images_are_perfect_and_counted_where_the_structure_is(
    evaluator: StructureEvaluator,
) -> None:
    overall, values = evaluator({"model": evaluator.images})["model"]
    assert overall.mean == 1 and overall.n == 6
    assert [values[name]["mse"].n for name in NAMES] == [6, 4, 0]
    for name in NAMES[:2]:
        found = {metric: value.mean for metric, value in values[name].items()}
        assert list(found) == ["fid_moments", "ssim", "mse", "faithfulness", "contrast_error"]
        expected = [0, 1, 0, 1, 0]
        assert list(found.values()) == pytest.approx(expected, abs=1e-6)
    assert all(value.plain()["mean"] is None for value in values["PA"].values())


def test_errors_are_those_inside_the_structure(evaluator: StructureEvaluator) -> None:
    labels, images = evaluator.labels, evaluator.images
    drawn = torch.where(labels == 2, images - 0.1, images)
    drawn[3:] = torch.where(labels[3:] == 1, images[3:] + 0.2, drawn[3:])  # LV: half of the slices
    drawn[:, :, 58:] = 1  # outside of both
    found = measured(evaluator, drawn)
    assert found["LV"]["mse"] == pytest.approx(0.04 / 2, rel=1e-4)
    assert found["Ao"]["mse"] == pytest.approx(0.01, rel=1e-4)
    assert found["LV"]["contrast_error"] == pytest.approx(0.1, rel=1e-3)
    assert found["Ao"]["faithfulness"] == pytest.approx(1 - 0.1 / 0.4, abs=0.01)
    assert 0.9 < found["Ao"]["ssim"] < found["LV"]["ssim"] < 0.999  # darker by a fifth in all slices


def test_the_overall_value_is_the_mean_over_structures_bounded_at_nothing(
    evaluator: StructureEvaluator,
) -> None:
    drawn = torch.where(evaluator.labels == 2, -2.0, evaluator.images)
    overall, values = evaluator({"model": drawn})["model"]
    assert values["Ao"]["faithfulness"].mean < -1
    assert overall.mean == pytest.approx(0.5) and overall.low <= 0.5 <= overall.high


def test_fid_is_that_of_the_surroundings(evaluator: StructureEvaluator) -> None:
    drawn = evaluator.images.clone()
    drawn[:, :, :16, 36:56] += 0.3  # around Ao
    found = measured(evaluator, drawn)
    assert found["LV"]["fid_moments"] == pytest.approx(0, abs=1e-6)
    crops = torch.nn.functional.interpolate(
        torch.stack([evaluator.images[2:, :, 1:19, 37:55], drawn[2:, :, 1:19, 37:55]]).flatten(0, 1),
        (64, 64),
        mode="bilinear",
        antialias=True,
    )
    real, fake = Moments()(crops).split(4)
    assert found["Ao"]["fid_moments"] == pytest.approx(fid(real, fake), rel=1e-4) and fid(real, fake) > 0.05


def test_similarity_pixel_by_pixel_has_the_mean_of_the_whole() -> None:
    first, second = slices()[0][:2], slices()[0][2:4]
    found = ssim_map(first, second)
    assert found.shape == first.shape
    assert torch.allclose(found[..., 5:-5, 5:-5].mean((1, 2, 3)), ssim(first, second), atol=1e-6)
    assert float(found[0, 0, 10, 45]) < 0.5 < float(found[0, 0, 60, 60])  # where only the second has an Ao


def test_tiny_images_have_no_similarity() -> None:
    labels = torch.zeros(3, 1, 9, 9)
    labels[:, 0, 3:6, 3:6] = 1
    values = StructureEvaluator(labels, labels, ["LV"], Moments(), resamples=3)({"model": labels})["model"][1]
    assert "ssim" not in values["LV"] and values["LV"]["mse"].mean == 0


def test_result_is_plain_and_every_value_has_its_baselines(evaluator: StructureEvaluator) -> None:
    baselines = {"mean_image": evaluator.images.mean(0, keepdim=True).expand_as(evaluator.images)}
    result: dict[str, Any] = structures_with_baselines(evaluator, evaluator.images, baselines)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["structures"]) == NAMES
    error = result["structures"]["Ao"]["mse"]
    assert error["mean"] == 0 and error["better"] == "lower" and error["n"] == 4
    assert error["baselines"]["mean_image"]["mean"] > 0.01
    overall = result["metrics"]["structure_faithfulness"]
    assert overall["mean"] == 1 and overall["better"] == "higher"
    assert overall["baselines"]["mean_image"]["mean"] < 1


def test_broken_predictions_never_look_good(evaluator: StructureEvaluator) -> None:
    broken = evaluator.images.clone()
    broken[3] = torch.nan
    overall, values = evaluator({"model": broken})["model"]
    assert overall.plain()["mean"] is None
    assert all(value.plain()["mean"] is None for found in values.values() for value in found.values())


def box(top: int, bottom: int, left: int, right: int, height: int = 60, width: int = 80) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top, left:right] = True
    mask[top:bottom, left] = True
    return mask


def test_the_box_is_square_with_a_margin_around_the_structure() -> None:
    assert crop_box(box(20, 40, 36, 40)) == (15, 23, 30)
    assert crop_box(box(0, 4, 72, 80)) == (0, 68, 12)  # inside the image
    assert crop_box(box(2, 10, 3, 70)) == (0, 6, 60)  # no larger than the image's height
    with pytest.raises(ValueError, match="empty mask"):
        crop_box(torch.zeros(5, 5, dtype=torch.bool))


def test_crops_show_the_box_and_nothing_else() -> None:
    mask = box(20, 28, 30, 50)[None, None]
    image = torch.full((1, 1, 60, 80), -1.0)
    image[0, 0, 9:39, 25:55] = 0.5
    image[0, 0, 9:24, 25:55] = -0.25  # the upper half of the box
    crops = structure_crops(image.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1))
    assert crops.shape == (2, 1, CROP_SIZE, CROP_SIZE)
    assert (crops[1, 0, :30] == -0.25).all() and (crops[1, 0, 34:] == 0.5).all()
    assert structure_crops(image[:0], mask[:0]).shape == (0, 1, CROP_SIZE, CROP_SIZE)

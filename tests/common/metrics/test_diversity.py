from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.data.layouts import find_samples
from common.data.reading import read_pixels
from common.data.resizing import resize_image
from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.diversity import (
    PairValues,
    drawn_pairs,
    feature_distances,
    similarities,
    similarity_name,
    texture_correlation,
    textures,
)
from common.metrics.images import ssim


def numbers() -> np.random.Generator:
    return np.random.default_rng(3)


def noise(count: int, size: int = 16) -> Tensor:
    return torch.from_numpy(numbers().uniform(-1, 1, (count, 1, size, size))).float()


def test_few_pairs_are_all_taken() -> None:
    pairs = drawn_pairs(4, numbers()).tolist()
    assert pairs == [[0, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]


def test_many_pairs_are_drawn_without_repetition() -> None:
    pairs = drawn_pairs(3000, numbers(), most=400)
    assert pairs.shape == (400, 2) and len(pairs.unique(dim=0)) == 400
    assert (pairs[:, 0] < pairs[:, 1]).all() and int(pairs.max()) > 2900 and int(pairs.min()) >= 0
    assert torch.equal(pairs, drawn_pairs(3000, numbers(), most=400))


def test_equal_images_are_alike_and_one_pair_is_its_ssim() -> None:
    images = noise(3)
    images[1] = images[0]
    found = similarities(images, torch.tensor([[0, 1], [1, 2]]))
    assert found.values.tolist() == pytest.approx([1, float(ssim(images[1:2], images[2:3]))])
    assert found.mean() == pytest.approx(float(found.values.mean())) and found.values[1] < 0.5


def test_similarity_depends_on_the_size() -> None:
    assert [similarity_name(size) for size in (11, 160, 161)] == ["ssim", "ssim", "ms_ssim"]
    with pytest.raises(UserError, match="10 pixels are too small"):
        similarity_name(10)


def test_feature_distances_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 16.0]])
    assert feature_distances(features, drawn_pairs(3, numbers())).values.tolist() == pytest.approx(
        [5, (9 + 256) ** 0.5, 12]
    )


def test_the_interval_counts_a_pair_as_often_as_both_images() -> None:
    found = PairValues(torch.tensor([[0, 1], [0, 2]]), torch.tensor([1.0, 4.0]).double())
    assert found._weighted(torch.tensor([1.0, 3.0, 2.0])) == pytest.approx((3 * 1 + 2 * 4) / 5)
    features = torch.from_numpy(numbers().normal(size=(30, 5)))
    distances = feature_distances(features, drawn_pairs(30, numbers()))
    value = distances.interval(Resamples(resample_counts(None, 30, 200, numbers())))
    assert value.low < value.mean == pytest.approx(distances.mean()) and value.mean < value.high


def test_a_single_image_has_no_diversity() -> None:
    with pytest.raises(UserError, match="1 images make no pair"):
        drawn_pairs(1, numbers())


def of_patients(patients: int, slices: int = 3) -> list[str]:
    return [f"p{index // slices}" for index in range(patients * slices)]


def measured(images: Tensor, patients: list[str]) -> Value:
    return texture_correlation(images, patients, Resamples.over(patients, len(patients), 200, numbers()))


def test_pairs_of_one_patient_are_left_out() -> None:
    patients = of_patients(4)
    pairs = drawn_pairs(12, numbers(), patients=patients)
    assert len(pairs) == 66 - 12 and all(
        patients[first] != patients[second] for first, second in pairs.tolist()
    )
    few = drawn_pairs(12, numbers(), 20, patients)
    assert few.shape == (20, 2) and len(few.unique(dim=0)) == 20
    assert len(drawn_pairs(3, numbers(), patients=["a"] * 3)) == 0
    assert len(similarities(noise(3), torch.zeros(0, 2, dtype=torch.int64)).values) == 0


def test_texture_that_patients_share_is_seen() -> None:
    """The same noise in every image, a part of it, none of it; a patient's own slices do not count."""
    patients = of_patients(8)
    own, shared = noise(24, 48), noise(25, 48)[24:]
    fresh, half, same = (measured(weight * shared + (1 - weight) * own, patients) for weight in (0, 0.5, 1))
    assert abs(fresh.mean) < 0.02 and half.mean == pytest.approx(0.5, abs=0.03)
    assert same.mean == pytest.approx(1) and fresh.patients == 8 and fresh.low < fresh.mean < fresh.high
    alike = own[::3].repeat_interleave(3, 0)
    assert abs(measured(alike, patients).mean) < 0.03


def test_texture_correlation_is_the_mean_over_all_pairs_of_different_patients() -> None:
    images, patients = noise(7, 20) + 0.4 * noise(8, 20)[7:], ["a", "b", "a", "c", "c", "d", "b"]
    vectors = textures(images).double()
    products = [
        float(vectors[first] @ vectors[second])
        for first in range(7)
        for second in range(first)
        if patients[first] != patients[second]
    ]
    assert measured(images, patients).mean == pytest.approx(np.mean(products))


def test_smooth_images_have_no_texture() -> None:
    flat = torch.full((4, 1, 20, 20), 0.3)
    assert measured(flat, list("abcd")).mean == 0


@pytest.mark.realdata
def test_real_slices_share_little_texture(shared_data: Path) -> None:
    """COVID-SemiSeg at 128 x 128: about 0.04; with one noise map in all of them, 0.5."""
    folder = shared_data / "covid_lesions" / "pseudo"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    samples = find_samples(folder)[::16]
    pixels = [resize_image(read_pixels(sample).values, 128, 128) for sample in samples]
    images = torch.from_numpy(np.stack(pixels)[:, None]).float()
    images = images / (255 if images.max() > 1 else 1) * 2 - 1
    patients = [sample.patient for sample in samples]
    assert 0.02 < measured(images, patients).mean < 0.06
    shared = torch.from_numpy(numbers().normal(0, 0.1, (1, 1, 128, 128))).float()
    assert 0.4 < measured(images + shared, patients).mean < 0.7

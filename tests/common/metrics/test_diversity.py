from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.data.image_io import read_pixels
from common.data.layouts import find_samples
from common.data.slice_geometry import resize_image
from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.diversity import (
    Birthday,
    Diversity,
    PairValues,
    alike_pairs,
    birthday,
    class_probabilities,
    draw_pairs,
    feature_distances,
    inception_score,
    log_densities,
    log_likelihood,
    measure_diversity,
    score_with_interval,
    similarities,
    similarity_name,
    texture_correlation,
    textures,
    usual_bandwidths,
)
from common.metrics.image_quality import ssim


def numbers() -> np.random.Generator:
    return np.random.default_rng(3)


def noise(count: int, size: int = 16) -> Tensor:
    return torch.from_numpy(numbers().uniform(-1, 1, (count, 1, size, size))).float()


def test_few_pairs_are_all_taken() -> None:
    pairs = draw_pairs(4, numbers()).tolist()
    assert pairs == [[0, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]


def test_many_pairs_are_drawn_without_repetition() -> None:
    pairs = draw_pairs(3000, numbers(), most=400)
    assert pairs.shape == (400, 2) and len(pairs.unique(dim=0)) == 400
    assert (pairs[:, 0] < pairs[:, 1]).all() and int(pairs.max()) > 2900 and int(pairs.min()) >= 0
    assert torch.equal(pairs, draw_pairs(3000, numbers(), most=400))
    with pytest.raises(UserError, match="1 images make no pair"):
        draw_pairs(1, numbers())


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
    assert feature_distances(features, draw_pairs(3, numbers())).values.tolist() == pytest.approx(
        [5, (9 + 256) ** 0.5, 12]
    )


def test_the_interval_counts_a_pair_as_often_as_both_images() -> None:
    found = PairValues(torch.tensor([[0, 1], [0, 2]]), torch.tensor([1.0, 4.0]).double())
    assert found._weighted(torch.tensor([1.0, 3.0, 2.0])) == pytest.approx((3 * 1 + 2 * 4) / 5)
    features = torch.from_numpy(numbers().normal(size=(30, 5)))
    distances = feature_distances(features, draw_pairs(30, numbers()))
    value = distances.interval(Resamples(resample_counts(None, 30, 200, numbers())))
    assert value.low < value.mean == pytest.approx(distances.mean()) and value.mean < value.high


def of_patients(patients: int, slices: int = 3) -> list[str]:
    return [f"p{index // slices}" for index in range(patients * slices)]


def measured(images: Tensor, patients: list[str]) -> Value:
    return texture_correlation(images, patients, Resamples.draw(patients, len(patients), 200, numbers()))


def test_pairs_of_one_patient_are_left_out() -> None:
    patients = of_patients(4)
    pairs = draw_pairs(12, numbers(), patients=patients)
    assert len(pairs) == 66 - 12 and all(
        patients[first] != patients[second] for first, second in pairs.tolist()
    )
    few = draw_pairs(12, numbers(), 20, patients)
    assert few.shape == (20, 2) and len(few.unique(dim=0)) == 20
    assert len(draw_pairs(3, numbers(), patients=["a"] * 3)) == 0
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


class Means:
    """The mean of each image as its one feature."""

    name = "means"
    dimension = 1

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


def ramps(*levels: float) -> Tensor:
    """Images of a ramp each, at the levels given."""
    ramp = torch.linspace(-0.2, 0.2, 16).expand(len(levels), 1, 16, 16)
    return ramp + torch.tensor(levels).view(-1, 1, 1, 1)


def test_three_images_by_hand() -> None:
    found = measure_diversity(ramps(0.0, 0.1, 0.5), Means())
    assert found.features == pytest.approx((0.1 + 0.5 + 0.4) / 3, abs=1e-5)
    assert found.threshold == pytest.approx(0.1, abs=1e-5)  # nearest: 0.1, 0.1, 0.4
    assert found.modes == Birthday(3, True).modes  # the one alike pair of the three is complete at the third
    assert 0 < found.images < 1


def test_a_set_is_as_diverse_as_itself_and_equal_images_are_not_at_all() -> None:
    levels = np.random.default_rng(0).uniform(-0.7, 0.7, 60)
    real = measure_diversity(ramps(*levels), Means())
    same = measure_diversity(ramps(*[levels[3]] * 60), Means(), real.threshold)
    assert real.against(real) == {"images": 1, "features": 1, "modes": 1}
    measures = same.against(real)
    assert measures["images"] == pytest.approx(0, abs=1e-5) and measures["features"] == 0
    assert same.modes == Birthday(2, True).modes and measures["modes"] < 0.02


def test_a_few_modes_far_apart_are_found_by_their_repetitions_alone() -> None:
    levels = np.random.default_rng(0).uniform(-0.7, 0.7, 60)
    real = measure_diversity(ramps(*levels), Means())
    measures = measure_diversity(ramps(*[-0.7, -0.2, 0.3, 0.7] * 15), Means(), real.threshold).against(real)
    assert measures["features"] > 0.8 and measures["images"] > 0.7 and measures["modes"] < 0.05


def test_real_images_that_are_all_alike_do_not_divide() -> None:
    nothing = Diversity(0.0, 0.0, 1.0, 0.0)
    assert nothing.against(nothing) == {"images": 0, "features": 0, "modes": 1}


def normal(count: int, seed: int, spread: float = 1.0, dimension: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, spread, (count, dimension))).float()


def two_modes(count: int, seed: int) -> Tensor:
    """Half of them around -4, half around 4."""
    return normal(count, seed) + torch.tensor([-4.0, 4.0]).repeat(count // 2)[:, None]


def test_two_gaussians_by_hand() -> None:
    samples, images = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found = log_densities(samples, images, [1.0, 2.0]).exp()
    by_hand = [
        [(1 + math.exp(-25 / 2)) / 2, (math.exp(-1 / 2) + math.exp(-20 / 2)) / 2],
        [(1 + math.exp(-25 / 8)) / 2, (math.exp(-1 / 8) + math.exp(-20 / 8)) / 2],
    ]
    assert found[0].tolist() == pytest.approx([value / (2 * math.pi) for value in by_hand[0]])
    assert found[1].tolist() == pytest.approx([value / (2 * math.pi * 4) for value in by_hand[1]])


def test_the_density_is_one_in_all() -> None:
    places = torch.linspace(-30, 30, 1201)[:, None]
    density = log_densities(torch.tensor([[-2.0], [5.0], [5.5]]), places, [0.7]).exp()
    assert float(density.sum()) * 0.05 == pytest.approx(1, abs=1e-6)


def test_the_bandwidth_is_the_validation_images_own() -> None:
    """Around a single sample the most likely Gaussian has the root mean square distance as its width."""
    sample, validation, test = torch.zeros(1, 3), normal(50, 0, 0.3), normal(20, 1, 3.0)
    values, bandwidth = log_likelihood(sample, validation, test)
    assert bandwidth == pytest.approx(float(validation.square().mean().sqrt()), rel=1e-5)
    assert torch.equal(values, log_densities(sample, test, [bandwidth])[0]) and len(values) == 20


def test_the_row_of_bandwidths_holds_the_best() -> None:
    samples, validation = normal(200, 0), normal(100, 1)
    widths = usual_bandwidths(samples, validation)
    scores = log_densities(samples, validation, [*widths, 2 * widths[-1]]).mean(1)
    assert 0 < int(scores.argmax()) < len(widths) - 1 and widths == sorted(widths)


def test_a_collapsed_model_is_less_likely_and_the_order_is_not_symmetric() -> None:
    validation, test, full = (two_modes(100, seed) for seed in range(3))
    scores = [log_likelihood(samples, validation, test)[0].mean() for samples in (full, full.abs())]
    assert scores[1] < scores[0] - 0.5
    wide = normal(100, 1, 9.0)
    swapped = log_likelihood(test, validation, wide)[0].mean()
    assert log_likelihood(wide, validation, test)[0].mean() > swapped + 1


def test_equal_images_do_no_harm_and_missing_ones_are_named() -> None:
    same = torch.ones(4, 3)
    assert log_likelihood(same, same, same)[0].isfinite().all()
    with pytest.raises(UserError, match="no validation images"):
        log_likelihood(same, same[:0], same)


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.metrics.nearest_neighbors.ROWS", 64)


def modes(count: int, images: int) -> Tensor:
    """Images of equally likely modes: whole numbers with a little noise."""
    draws = np.random.default_rng(1)
    places = draws.integers(0, count, images) + draws.uniform(-0.1, 0.1, images)
    return torch.from_numpy(places)[:, None].float()


def test_twenty_three_people_share_a_birthday() -> None:
    found = birthday(modes(365, 900), 0.3, np.random.default_rng(5))
    assert found.reached and 20 <= found.batch <= 26
    assert Birthday(23, True).modes == pytest.approx(365, abs=0.1)


def test_twelve_modes_repeat_among_five() -> None:
    """Two of four are of one mode with probability 0.43, two of five with 0.62."""
    assert birthday(modes(12, 500), 0.3, np.random.default_rng(5)) == Birthday(5, True)


def test_total_collapse_repeats_at_once_and_different_images_never() -> None:
    assert birthday(torch.zeros(150, 4), 0.0, np.random.default_rng(5)) == Birthday(2, True)
    assert birthday(torch.arange(70.0)[:, None], 0.5, np.random.default_rng(5)) == Birthday(70, False)
    with pytest.raises(UserError, match="1 images cannot repeat"):
        birthday(torch.zeros(1, 2), 1.0, np.random.default_rng(5))


@pytest.mark.usefixtures("_small_blocks")
def test_alike_pairs_are_those_at_most_as_far() -> None:
    features = torch.from_numpy(np.random.default_rng(2).normal(300, 1, (150, 8))).float()
    features[140] = features[3]
    apart = (features.double()[:, None] - features.double()).square().sum(2).sqrt().triu(1)
    threshold = float(apart[2, 90])
    wanted = ((apart <= threshold) & torch.ones(150, 150).triu(1).bool()).nonzero()
    found = sorted(alike_pairs(features, threshold).tolist())
    assert found == wanted.tolist() and [2, 90] in found and [3, 140] in found


def certain(classes: list[int], count: int = 5) -> torch.Tensor:
    """One-hot rows."""
    return torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def test_the_number_of_classes_that_are_certain_and_equally_common() -> None:
    classes = ([2] * 50, [0, 1, 2, 3, 4] * 10, [1, 4] * 20)
    assert [inception_score(certain(each)) for each in classes] == pytest.approx([1, 5, 2])
    assert inception_score(torch.full((30, 5), 0.2)) == pytest.approx(1)


def test_a_value_by_hand() -> None:
    found = inception_score(torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    first = 0.9 * math.log(0.9 / 0.55) + 0.1 * math.log(0.1 / 0.45)
    second = 0.2 * math.log(0.2 / 0.55) + 0.8 * math.log(0.8 / 0.45)
    assert found == pytest.approx(math.exp((first + second) / 2))


def test_weights_count_rows_as_often() -> None:
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert inception_score(rows, torch.tensor([3.0, 1.0])) == pytest.approx(
        inception_score(rows[[0, 0, 0, 1]])
    )


def test_the_interval_holds_the_score_and_does_not_go_below_one() -> None:
    rows = torch.softmax(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), 1)
    resamples = Resamples(resample_counts(None, 40, 50, np.random.default_rng(0)))
    value = score_with_interval(rows, resamples)
    assert value.mean == pytest.approx(inception_score(rows)) and value.n == 40
    assert 1 <= value.low < value.mean < value.high


def test_logits_and_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="softmax"):
        inception_score(torch.tensor([[2.0, -1.0]]))
    with pytest.raises(UserError, match="no images"):
        inception_score(torch.zeros(0, 3))


def test_probabilities_come_in_batches() -> None:
    class Gray:
        name = "gray"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            share = images.mean((1, 2, 3))[:, None]
            return torch.cat([share, 1 - share], dim=1)

    images = torch.linspace(0, 1, 7)[:, None, None, None].expand(7, 1, 4, 4)
    assert torch.allclose(class_probabilities(Gray(), images, 3)[:, 0], torch.linspace(0, 1, 7))

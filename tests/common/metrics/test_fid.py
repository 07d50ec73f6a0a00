from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.metrics.fid import FIDMetric

from common.metrics.fid import StreamingMoments, fid, frechet_distance


def features(count: int, dimension: int, seed: int) -> torch.Tensor:
    numbers = np.random.default_rng(seed)
    mixing = numbers.standard_normal((dimension, dimension)) * np.linspace(0.1, 2, dimension)
    return torch.from_numpy(numbers.standard_normal((count, dimension)) @ mixing + numbers.uniform(0, 3))


def streamed(batches: Sequence[torch.Tensor]) -> StreamingMoments:
    result = StreamingMoments(batches[0].shape[1])
    for batch in batches:
        result.update(batch)
    return result


def gaussian(mean: torch.Tensor, covariance: torch.Tensor) -> StreamingMoments:
    """The moments of four vectors with this mean and covariance."""
    result = StreamingMoments(len(mean))
    result.load_state_dict({"count": torch.tensor(4), "mean": mean, "scatter": 3 * covariance})
    return result


def moments(values: torch.Tensor) -> StreamingMoments:
    return streamed(values.split(7))


@pytest.mark.parametrize("counts", [(300, 200), (40, 45)], ids=["full rank", "fewer samples than dimensions"])
def test_agrees_with_monai_on_the_same_features(counts: tuple[int, int]) -> None:
    real, fake = features(counts[0], 64, 1), features(counts[1], 64, 2)
    theirs = float(FIDMetric()(fake, real))
    first, second = moments(real), moments(fake)
    assert frechet_distance(first, second) == pytest.approx(theirs, rel=1e-3)
    assert fid(real, fake) == pytest.approx(frechet_distance(first, second), rel=1e-6)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first, second = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 0.0])
    mean1, mean2 = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 1.0, 2.0])
    expected = 9 + (1 - 2) ** 2 + 0 + 3**2  # shift, then squared differences of standard deviations
    distance = frechet_distance(gaussian(mean1, first.diag()), gaussian(mean2, second.diag()))
    assert distance == pytest.approx(expected, rel=1e-9)


def test_rotated_covariances_do_not_commute() -> None:
    first, second = torch.diag(torch.tensor([4.0, 1.0])), torch.tensor([[2.5, 1.5], [1.5, 2.5]])
    # tr sqrt(S1 S2) of 2 x 2 matrices is sqrt(tr(S1 S2) + 2 sqrt(det(S1 S2)))
    expected = 5 + 5 - 2 * np.sqrt(12.5 + 2 * np.sqrt(16.0))
    mean = torch.zeros(2)
    distance = frechet_distance(gaussian(mean, first), gaussian(mean, second))
    assert distance == pytest.approx(expected, rel=1e-9)


def test_identical_sets_are_at_distance_zero() -> None:
    real = features(30, 64, 1)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(moments(real), moments(real)) < 1e-6


def test_a_collapsed_set_is_as_far_as_the_real_spread() -> None:
    real = features(50, 8, 3)
    collapsed = real.mean(0, keepdim=True).expand(50, -1)
    spread = float(real.var(0).sum())
    assert fid(real, collapsed) == pytest.approx(spread, rel=1e-9)
    assert fid(real + 2, collapsed) == pytest.approx(spread + 8 * 4, rel=1e-9)


def test_one_vector_a_side_is_a_plain_distance() -> None:
    first, second = moments(torch.tensor([[0.0, 3.0]])), moments(torch.tensor([[4.0, 0.0]]))
    assert frechet_distance(first, second) == pytest.approx(25)


def test_weights_count_rows() -> None:
    real, fake = features(5, 8, 1), features(4, 8, 2)
    weights, fake_weights = torch.tensor([2.0, 0, 1, 1, 0]), torch.tensor([0.0, 1, 3, 1])
    repeated, fake_repeated = real[[0, 0, 2, 3]], fake[[1, 2, 2, 2, 3]]
    assert fid(real, fake, weights, fake_weights) == pytest.approx(fid(repeated, fake_repeated), rel=1e-9)


def features_statistics(count: int = 57, dimension: int = 5) -> torch.Tensor:
    numbers = np.random.default_rng(1)
    mixing = numbers.standard_normal((dimension, dimension))
    return torch.from_numpy(100 + numbers.standard_normal((count, dimension)) @ mixing)


def test_uneven_batches_give_mean_and_covariance_of_the_whole() -> None:
    whole = features_statistics()
    assert not streamed([whole[:1]]).covariance.any()
    before = whole.clone()
    moments = streamed([whole[:1], whole[1:40], whole[40:40], whole[40:]])
    assert torch.equal(whole, before)
    assert int(moments.count) == 57
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(whole.numpy(), rowvar=False), rtol=1e-9, atol=1e-12)


def test_float32_features_far_from_zero_keep_their_covariance() -> None:
    whole = (features_statistics(200) * 1e-2 + 1e3).float()
    moments = streamed(list(whole.split(16)))
    expected = np.cov(whole.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-7, atol=1e-10)


def test_merge_equals_one_stream_and_ignores_an_empty_one() -> None:
    whole = features_statistics()
    left, right = streamed([whole[:9]]), streamed([whole[9:30], whole[30:]])
    left.merge(right)
    left.merge(StreamingMoments(5))
    empty = StreamingMoments(5)
    empty.merge(left)
    for moments in (left, empty):
        np.testing.assert_allclose(moments.scatter, streamed([whole]).scatter, rtol=1e-9)
        np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-12)


def test_state_goes_round() -> None:
    moments = streamed([features_statistics()])
    other = StreamingMoments(5)
    other.load_state_dict(moments.state_dict())
    moments.update(features_statistics())
    assert int(other.count) == 57 and int(moments.count) == 114
    assert torch.equal(other.covariance, streamed([features_statistics()]).covariance)

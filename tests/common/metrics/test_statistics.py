from __future__ import annotations

import numpy as np
import torch

from common.metrics.statistics import StreamingMoments


def features(count: int = 57, dimension: int = 5) -> torch.Tensor:
    numbers = np.random.default_rng(1)
    mixing = numbers.standard_normal((dimension, dimension))
    return torch.from_numpy(100 + numbers.standard_normal((count, dimension)) @ mixing)


def streamed(batches: list[torch.Tensor]) -> StreamingMoments:
    moments = StreamingMoments(batches[0].shape[1])
    for batch in batches:
        moments.update(batch)
    return moments


def test_uneven_batches_give_mean_and_covariance_of_the_whole() -> None:
    whole = features()
    moments = streamed([whole[:1], whole[1:40], whole[40:40], whole[40:]])
    assert int(moments.count) == 57
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(whole.numpy(), rowvar=False), rtol=1e-9, atol=1e-12)


def test_float32_features_far_from_zero_keep_their_covariance() -> None:
    whole = (features(200) * 1e-2 + 1e3).float()
    moments = streamed(list(whole.split(16)))
    expected = np.cov(whole.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-7, atol=1e-10)


def test_merge_equals_one_stream_and_ignores_an_empty_one() -> None:
    whole = features()
    left, right = streamed([whole[:9]]), streamed([whole[9:30], whole[30:]])
    left.merge(right)
    left.merge(StreamingMoments(5))
    empty = StreamingMoments(5)
    empty.merge(left)
    for moments in (left, empty):
        np.testing.assert_allclose(moments.scatter, streamed([whole]).scatter, rtol=1e-9)
        np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-12)


def test_update_leaves_its_input_alone() -> None:
    whole = features()
    before = whole.clone()
    streamed([whole])
    assert torch.equal(whole, before)


def test_state_goes_round() -> None:
    moments = streamed([features()])
    other = StreamingMoments(5)
    other.load_state_dict(moments.state_dict())
    moments.update(features())
    assert int(other.count) == 57 and int(moments.count) == 114
    assert torch.equal(other.covariance, streamed([features()]).covariance)


def test_one_vector_has_no_covariance() -> None:
    assert torch.equal(streamed([features()[:1]]).covariance, torch.zeros(5, 5, dtype=torch.float64))

from __future__ import annotations

import pytest
import torch

from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.fid import fid
from common.random import generator
from common.trust.extrapolation import fid_infinity


def features(count: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(generator(seed, "features").normal(offset, 1, (count, 8))).float()


def resamples(count: int) -> Resamples:
    return Resamples(resample_counts(None, count, 20, generator(0, "test")))


def test_the_bias_of_few_images_goes() -> None:
    """Two samples of one distribution: 0 with infinitely many images, more with few."""
    found = [fid_infinity(features(200, seed), features(200, seed + 50), resamples(400)) for seed in range(5)]
    plain = [fid(features(200, seed), features(200, seed + 50)) for seed in range(5)]
    for each, value in zip(found, plain, strict=True):
        assert each is not None and each.value.n == 200
        assert each.means[0] == pytest.approx(value) and each.means == sorted(each.means)
        assert each.numbers == pytest.approx([200, 100, 200 / 3, 50], rel=1e-3)
        assert each.value.low <= each.value.mean <= each.value.high
    assert sum(each.value.mean for each in found if each) < 0.3 * sum(plain)


def test_a_true_distance_stays() -> None:
    found = fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))
    assert found is not None and found.value.mean == pytest.approx(8 * 0.25, rel=0.2)
    assert found == fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))


def clustered(patients: int, slices: int, seed: int, name: str) -> tuple[torch.Tensor, list[str]]:
    """Slices half as far from their patient as patients are from each other: (patients * slices, 4)."""
    numbers = generator(seed, name)
    drawn = numbers.normal(0, 1, (patients, 1, 4)) + numbers.normal(0, 0.5, (patients, slices, 4))
    names = [f"{name}{place // slices}" for place in range(patients * slices)]
    return torch.from_numpy(drawn.reshape(-1, 4)).float(), names


def test_it_is_patients_that_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One distribution twice: cut by slices, the bias of few patients stays."""
    monkeypatch.setattr("common.trust.extrapolation.LEFT_OUT", 2)  # no interval is asked for
    by_patient, by_slice = [], []
    for seed in range(6):
        (real, names), (fake, others) = clustered(24, 6, seed, "a"), clustered(32, 6, seed, "b")
        for found, ids in ((by_patient, (names, others)), (by_slice, (None, None))):
            sides = [
                Resamples.over(each, len(part), 20, generator(0, "test"))
                for each, part in zip(ids, (real, fake), strict=True)
            ]
            line = fid_infinity(real, fake, sides[0].beside(sides[1]), seed)
            assert line is not None
            found.append(line.value.mean)
    assert sum(by_slice) / 6 > 0.2 and sum(by_patient) < 0.4 * sum(by_slice)


def test_few_patients_have_a_value_or_none_and_no_interval() -> None:
    (real, names), (fake, others) = clustered(5, 24, 0, "a"), clustered(14, 24, 0, "b")
    sides = [Resamples.over(each, len(each), 20, generator(0, "test")) for each in (names, others)]
    found = fid_infinity(real, fake, sides[0].beside(sides[1]))
    assert found is not None and found.value.mean >= 0 and not found.value.bounded
    three = Resamples.over(names[:72], 72, 20, generator(0, "test"))
    assert fid_infinity(real[:72], fake, three.beside(sides[1])) is None


def test_none_for_very_few() -> None:
    assert fid_infinity(features(7, 0), features(100, 1), resamples(107)) is None

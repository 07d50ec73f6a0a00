from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import nearest_neighbors as pairs_module
from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.prdc import prdc, too_few_others
from tests.common.metrics.plain_pairs import plain_prdc


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "ROWS", 64)


def features(count: int, seed: int, spread: float = 1.0, level: float = 3.0) -> Tensor:
    """A few factors behind many features, as an extractor gives them."""
    factors = np.random.default_rng(seed).normal(0, spread, (count, 4))
    mixing = np.random.default_rng(99).normal(0, 1, (4, 24))
    return torch.from_numpy(np.maximum(factors @ mixing + level, 0)).float()


def line(*places: float) -> Tensor:
    return torch.tensor(places)[:, None]


def test_four_places_on_a_line_by_hand() -> None:
    # Balls with k = 1: real (0, 2), (2, 2), (10, 8); generated (1, 0.5), (1.5, 0.5), (30, 28.5)
    manifolds = prdc(line(0, 2, 10), line(1, 1.5, 30), k=1)
    assert manifolds.precision.tolist() == [1, 1, 0]
    assert manifolds.recall.tolist() == [0, 1, 1]  # 2 lies on the rim of (1.5, 0.5)
    assert manifolds.density.tolist() == [2, 2, 0]  # 10's ball ends at 2
    assert manifolds.coverage.tolist() == [1, 1, 0]


def test_equal_sets_are_perfect() -> None:
    real = features(90, 0)
    means = prdc(real, real.clone()).means()
    assert means == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1})


def test_mode_collapse_is_precise_and_recalls_nothing() -> None:
    real = features(120, 0)
    collapsed = prdc(real, real[:1] + features(120, 1, 1e-3, 0)).means()
    assert collapsed["precision"] == 1 and collapsed["coverage"] < 0.15
    assert collapsed["recall"] == pytest.approx(1 / 120)  # the one image that all others copy
    scattered = prdc(real, features(120, 1, 4.0)).means()
    assert scattered["recall"] > 0.8 and scattered["precision"] < 0.4


def test_one_outlier_fools_precision_and_not_density() -> None:
    """Naeem et al. 2020, figure 1: a real outlier's ball holds far generated images."""
    real = torch.cat([features(100, 0), features(1, 0) + 40])
    manifolds = prdc(real, features(100, 1) + 15).means()
    assert manifolds["precision"] > 0.9 and manifolds["density"] < 0.4 and manifolds["coverage"] < 0.05


@pytest.mark.parametrize(("count", "k"), [(150, 5), (131, 3)])
def test_the_same_as_whole_matrices(count: int, k: int) -> None:
    real, fake = features(200, 0), features(count, 1, 0.8)
    plain = real.double().numpy(), fake.double().numpy()
    assert prdc(real, fake, k).means() == pytest.approx(plain_prdc(*plain, k))


@pytest.mark.parametrize("shared", [False, True])
def test_slices_of_a_patient_are_no_neighbours(shared: bool) -> None:
    """As whole matrices in which they are infinitely apart; without names the balls end at the next slice."""
    real, fake = (features(count // 5, seed).repeat_interleave(5, 0) for count, seed in ((200, 0), (150, 1)))
    real, fake = real + features(200, 2, 0.05, 0), fake + features(150, 3, 0.05, 0)
    names = (
        [f"p{place // 5}" for place in range(200)],
        [f"{'p' if shared else 'q'}{place // 5}" for place in range(150)],
    )
    plain = real.double().numpy(), fake.double().numpy()
    manifolds = prdc(real, fake, 5, names)
    assert manifolds.means() == pytest.approx(plain_prdc(*plain, 5, *names))
    assert prdc(real, fake, 5, patients=(names[0], None)).means() == pytest.approx(
        plain_prdc(*plain, 5, names[0])
    )
    assert manifolds.means()["recall"] > prdc(real, fake).means()["recall"]


def test_one_patient_with_nearly_all_images_has_no_neighbours() -> None:
    names = ["a"] * 20 + ["b"] * 4
    found = prdc(features(24, 0), features(30, 1), patients=(names, None)).means()
    assert all(math.isnan(value) for value in found.values())
    assert "24 images, 20 of them of one patient" in too_few_others(names) and not too_few_others(
        ["a", "b"] * 6
    )


def test_exact_where_products_lose_the_difference() -> None:
    """Radii and distances far below what rounding leaves of the features' squares."""
    far = torch.tensor([[-100.0], [100.0]]).repeat_interleave(40, 0)  # two clusters
    real = far + torch.from_numpy(np.random.default_rng(0).normal(0, 1e-4, (80, 12))).float()
    fake = far + torch.from_numpy(np.random.default_rng(1).normal(0, 1e-4, (80, 12))).float()
    exact = plain_distances(real, fake, k=2)
    assert prdc(real, fake, k=2).means() == pytest.approx(exact) and 0.2 < exact["precision"] < 1


def plain_distances(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    """From differences in float64, which products cannot match here."""

    def apart(first: Tensor, second: Tensor) -> Tensor:
        return (first.double()[:, None] - second.double()).square().sum(2)

    real_radii, fake_radii = (apart(part, part).sort(dim=1).values[:, k] for part in (real, fake))
    between = apart(real, fake)
    inside = between < real_radii[:, None]
    return {
        "precision": float(inside.any(0).double().mean()),
        "recall": float((between < fake_radii).any(1).double().mean()),
        "density": float(inside.sum(0).double().mean() / k),
        "coverage": float(inside.any(1).double().mean()),
    }


def test_intervals_hold_the_values() -> None:
    real, fake = features(60, 0), features(80, 1, 0.6)
    numbers = np.random.default_rng(0)
    resamples = [Resamples(resample_counts(None, count, 100, numbers)) for count in (60, 80)]
    manifolds = prdc(real, fake)
    found = manifolds.intervals(*resamples)
    assert list(found) == ["precision", "recall", "density", "coverage"]
    for name, value in found.items():
        assert value.low <= value.mean <= value.high and value.mean == pytest.approx(manifolds.means()[name])
    assert (found["recall"].n, found["density"].n) == (60, 80) and found["recall"].low < found["recall"].high


def test_features_that_are_no_numbers_give_none() -> None:
    broken = features(20, 0)
    broken[3, 2] = math.nan
    assert all(math.isnan(value) for value in prdc(features(20, 1), broken).means().values())


def test_too_few_images_are_named() -> None:
    with pytest.raises(UserError, match="5 nearest images wanted, but there are 3"):
        prdc(features(30, 0), features(4, 1))

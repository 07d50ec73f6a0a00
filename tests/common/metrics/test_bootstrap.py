from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.metrics.bootstrap import Resamples, few_patients, percentile_interval, resample_counts


def numbers() -> np.random.Generator:
    return np.random.default_rng(4)


def test_patients_are_drawn_whole() -> None:
    patients = ["b", "a", "b", "c", "b"]
    counts = resample_counts(patients, 5, 200, numbers())
    assert counts.shape == (200, 5)
    assert torch.equal(counts[:, 0], counts[:, 2]) and torch.equal(counts[:, 0], counts[:, 4])
    assert torch.equal(
        counts[:, 0] + counts[:, 1] + counts[:, 3], torch.full((200,), 3.0, dtype=torch.float64)
    )


def test_images_are_drawn_where_there_are_no_patients() -> None:
    counts = resample_counts(None, 6, 50, numbers())
    assert torch.equal(counts.sum(1), torch.full((50,), 6.0, dtype=torch.float64))
    assert (counts[:, 0] != counts[:, 1]).any()


def test_mean_interval_matches_normal_theory() -> None:
    values = torch.from_numpy(numbers().normal(5, 2, 400))
    counts = resample_counts(None, 400, 1000, numbers())
    low, high = percentile_interval(lambda w: float(w @ values / w.sum()), counts)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)


def test_alike_slices_of_a_patient_widen_the_interval() -> None:
    values = torch.from_numpy(np.repeat(numbers().normal(0, 1, 20), 10))
    patients = [str(index // 10) for index in range(200)]

    def width(patients: list[str] | None) -> float:
        counts = resample_counts(patients, 200, 500, numbers())
        low, high = percentile_interval(lambda w: float(w @ values / w.sum()), counts)
        return high - low

    assert width(patients) == pytest.approx(math.sqrt(10) * width(None), rel=0.2)


def test_resamples_without_a_value_are_left_out() -> None:
    counts = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    low, high = percentile_interval(lambda w: math.nan if w == 0 else float(w), counts)
    assert 1 <= low < high <= 3


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_patients_have_no_interval(count: int) -> None:
    """One patient's slices were once drawn as if they were patients: the interval held the truth in 23 %."""
    values = torch.linspace(0, 1, 40, dtype=torch.float64)
    patients = [str(index * count // 40) for index in range(40)]
    value = Resamples.draw(patients, 40, 200, numbers()).mean(values)
    assert value.mean == pytest.approx(0.5) and not value.bounded
    assert value.plain() == {"mean": pytest.approx(0.5), "interval": None, "n": 40, "patients": count}
    assert value.text(".1f") == "0.5"


def test_three_patients_by_hand() -> None:
    """Student's with two degrees of freedom: 4.303 standard errors of the three patients' means."""
    values = torch.tensor([1.0, 1.0, 2.0, 2.0, 6.0, 6.0], dtype=torch.float64)
    value = Resamples.draw(list("aabbcc"), 6, 200, numbers()).mean(values)
    reach = 4.302653 * math.sqrt(7 / 3)
    assert (value.mean, value.low, value.high) == pytest.approx((3, 3 - reach, 3 + reach), rel=1e-6)
    assert value.plain()["patients"] == 3 and value.text(".1f") == "3.0 [-3.6, 9.6]"


def test_a_ratio_weighs_patients_by_their_slices() -> None:
    """Of one patient of three slices and two of one: leaving one out leaves 1, 0.75 and 0.75."""
    parts = torch.tensor([[1.0, 1], [0, 1], [1, 1], [1, 1], [1, 1]], dtype=torch.float64)
    found = Resamples.draw(list("aaabc"), 5, 200, numbers()).ratio(
        parts, lambda sums: float(sums[0] / sums[1])
    )
    without = np.array([1.0, 0.75, 0.75])
    error = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found.mean == 0.8 and found.high - found.low == pytest.approx(2 * 4.302653 * error, rel=1e-6)


def test_skewed_values_widen_the_side_of_their_tail() -> None:
    values = torch.tensor([1.0, 1.1, 1.2, 1.3, 1.4, 9.0], dtype=torch.float64)
    value = Resamples.draw(None, 6, 1000, numbers()).mean(values)
    assert value.high - value.mean > 2 * (value.mean - value.low) and value.patients is None


def test_many_patients_are_left_out_in_parts() -> None:
    values = torch.from_numpy(numbers().normal(0, 1, 400))
    drawn = Resamples.draw([str(index) for index in range(400)], 400, 1000, numbers())
    assert len(drawn.stratum_of_part) == 50 and drawn.parts.bincount().tolist() == [8] * 50
    value = drawn.mean(values)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert value.patients == 400 and value.high - value.low == pytest.approx(2 * half, rel=0.25)


def test_patients_in_both_sets_are_left_out_of_both() -> None:
    """The same patients beside themselves: what they share takes no part in the difference."""
    patients = [str(index // 2) for index in range(12)]
    values = torch.from_numpy(numbers().normal(0, 5, 12))
    drawn = Resamples.draw(patients, 12, 200, numbers())
    both = drawn.join(drawn)
    assert both.patients == 6 and len(both.stratum_of_part) == 6

    def apart(weights: torch.Tensor) -> float:
        here, there = weights[:12], weights[12:]
        return float(here @ values / here.sum() - there @ (values - 1) / there.sum())

    same = both.distance(apart)
    assert (same.low, same.high) == (pytest.approx(1), pytest.approx(1))
    strangers = drawn.join(Resamples.draw([f"other {name}" for name in patients], 12, 200, numbers()))
    assert len(strangers.stratum_of_part) == 12
    other = strangers.distance(apart)
    assert other.high - other.low > 1


def test_a_share_on_which_all_patients_agree_is_not_certain() -> None:
    """Five patients of ten images, all 1: as five of five independent ones, (1 - 0.95) / 2 = low ** 5."""
    patients = [str(index // 10) for index in range(50)]
    drawn = Resamples.draw(patients, 50, 200, numbers())
    sure = drawn.share(torch.ones(50, dtype=torch.float64))
    assert (sure.mean, sure.low, sure.high) == pytest.approx((1, 0.025 ** (1 / 5), 1))
    single = Resamples.draw(None, 50, 200, numbers()).share(torch.tensor([1.0] * 20 + [0.0] * 30).double())
    assert (single.low, single.high) == pytest.approx((0.264, 0.548), abs=0.005)  # of 20 of 50
    apart = drawn.share(torch.tensor([1.0] * 20 + [0.0] * 30, dtype=torch.float64))
    assert apart.low < 0.1 and apart.high > 0.85  # whole patients: as two of five


def test_a_quotient_has_fieller_s_interval() -> None:
    """Of two means: the ratio's error by the delta method where the denominator is certain."""
    above, below = (torch.from_numpy(numbers().normal(level, 0.3, 200)) for level in (3.0, 6.0))
    drawn = Resamples.draw(None, 200, 200, numbers())
    parts = torch.zeros(50, 2, dtype=torch.float64).index_add_(0, drawn.parts, torch.stack([above, below], 1))

    def means(weights: torch.Tensor) -> tuple[float, float]:
        first, second = (weights @ parts).tolist()
        return first / (4 * float(weights.sum())), second / (4 * float(weights.sum()))

    value = drawn.quotient(means)
    ratio = float(above.sum() / below.sum())
    error = float((above - ratio * below).std()) / math.sqrt(200) / float(below.mean())
    assert value.mean == pytest.approx(ratio)
    assert value.high - value.low == pytest.approx(2 * 2.01 * error, rel=0.25)
    unsure = drawn.quotient(
        lambda weights: (means(weights)[0], means(weights)[1] - float(below.mean()) + 1e-6)
    )
    assert unsure.mean > 1e5 and not unsure.bounded
    assert math.isnan(drawn.quotient(lambda weights: (1.0, -1.0)).mean)


def test_percentiles_are_expanded_for_few_patients() -> None:
    values = torch.from_numpy(numbers().normal(0, 1, 8))
    counts = resample_counts(None, 8, 2000, numbers())
    plain = percentile_interval(lambda w: float(w @ values / 8), counts)
    wide = percentile_interval(lambda w: float(w @ values / 8), counts, 8)
    assert wide[1] - wide[0] > 1.15 * (plain[1] - plain[0])
    assert all(math.isnan(end) for end in percentile_interval(lambda w: 1.0, counts, 2))


@pytest.mark.parametrize(
    ("patients", "said"), [(None, None), (10, None), (9, "only 9 patients"), (2, "no int")]
)
def test_few_patients_are_said(patients: int | None, said: str | None) -> None:
    line = few_patients(patients)
    assert line is None if said is None else line is not None and said in line


def test_a_distance_of_two_sets_drawn_apart() -> None:
    first, second = (torch.from_numpy(numbers().normal(level, 1, 40)) for level in (0.0, 3.0))
    counts = [resample_counts(None, 40, 300, np.random.default_rng(seed)) for seed in (0, 1)]
    both = Resamples(counts[0]).join(Resamples(counts[1]))

    def apart(weights: torch.Tensor) -> float:
        left, right = weights[:40], weights[40:]
        return float((right @ second) / right.sum() - (left @ first) / left.sum())

    value = both.distance(apart)
    assert value.mean == pytest.approx(3.0) and value.n == 80
    half = 1.96 * math.sqrt(float(first.var() + second.var()) / 40)  # the two sets' errors add up
    assert value.high - value.low == pytest.approx(2 * half, rel=0.15)

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom

from common.errors import UserError
from common.random import generator
from common.trust.gate import calibrated, copied_from, exceedance_p_value, release_gate, similarities
from common.trust.orientations import Found
from tests.common.trust.made_textures import pictures


def spread(count: int, seed: int, highest: float = 0.8) -> torch.Tensor:
    return torch.from_numpy(generator(seed, "gate").uniform(0, highest, count))


def test_the_threshold_is_what_one_in_twenty_held_out_images_exceeds() -> None:
    heldout = torch.arange(100, dtype=torch.float64) / 100
    assert calibrated(heldout) == 0.95 and int((heldout > calibrated(heldout)).sum()) == 4
    assert calibrated(heldout[:12]) == 0.11  # too few to say: the highest
    assert copied_from(torch.tensor([0.2, 0.8])) == pytest.approx(0.95)


def test_the_p_value_counts_the_threshold_as_estimated() -> None:
    assert exceedance_p_value(0, 50, 60) == 1
    assert exceedance_p_value(1, 1, 19) == pytest.approx(1 / 20)  # the highest of twenty, by exchangeability
    many = exceedance_p_value(10, 100, 10**6)
    assert many == pytest.approx(float(binom.sf(9, 100, 0.05)), rel=1e-3)
    assert exceedance_p_value(10, 100, 40) > 2 * many


def test_false_alarms_are_as_rare_as_stated() -> None:
    closed = [not release_gate(spread(80, 2 * seed), spread(40, 2 * seed + 1)).open for seed in range(400)]
    assert sum(closed) / 400 < 0.025


def test_it_closes_for_many_similar_images_and_for_one_copy() -> None:
    heldout = spread(60, 0)
    assert release_gate(spread(60, 1), heldout).open
    shifted = release_gate(torch.linspace(0.5, 0.9, 60).double(), heldout)
    assert not shifted.open and shifted.p_value < 0.01 and "no chance" in shifted.reason
    one = spread(60, 1)
    one[7] = 0.99
    gate = release_gate(one, heldout, range(60))
    assert (
        not gate.open and gate.flagged[0] == 7 and gate.p_value > 0.01 and "1 image is a copy" in gate.reason
    )


def test_a_given_threshold_allows_none_above_it() -> None:
    similar = torch.tensor([0.5, 0.91, 0.2, 0.95])
    gate = release_gate(similar, spread(60, 0), max_similarity=0.9)
    assert not gate.open and gate.flagged == [3, 1] and math.isnan(gate.p_value) and not gate.calibrated
    assert release_gate(similar, spread(60, 0), max_similarity=0.96).open
    for wrong in (1.5, math.nan):
        with pytest.raises(UserError, match=r"max_similarity .*: a correlation between"):
            release_gate(similar, spread(60, 0), max_similarity=wrong)


def test_similarity_is_a_correlation_and_a_constant_image_has_none() -> None:
    images = torch.cat([pictures(1, 0), torch.zeros(1, 1, 32, 32)])
    found = Found(torch.tensor([0.2, 1.0]).double(), torch.zeros(2).long(), torch.zeros(2).long())
    assert similarities(images, found).tolist() == pytest.approx([0.98, 0.0])

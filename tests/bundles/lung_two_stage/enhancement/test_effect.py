"""How much of a lung changed, and the noise that is as strong as a change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.enhancement.effect import changed_share, lungs_of, with_equal_noise


def test_a_quarter_of_the_lung_that_got_denser() -> None:
    before = np.full((1, 64, 64), -850, np.int16)
    lungs = np.zeros(before.shape, bool)
    lungs[:, :, 16:48] = True
    after = before.copy()
    after[:, :, 40:] += 30
    assert changed_share(before, after, lungs) == pytest.approx(
        7 / 32
    )  # the blur takes the column at the edge
    assert changed_share(before, after, lungs, least=40) == 0
    assert np.isnan(changed_share(before, after, np.zeros_like(lungs)))


def test_grain_alone_is_no_change() -> None:
    before = np.full((2, 64, 64), -850, np.int16)
    after = before + np.random.default_rng(0).normal(0, 40, before.shape)
    assert changed_share(before, after, np.ones(before.shape, bool)) < 0.02


def test_noise_is_as_strong_as_each_images_change() -> None:
    before = torch.zeros(2, 1, 48, 64)
    after = before.clone()
    after[0] += 0.05
    after[1, :, :24] -= 0.2
    change = with_equal_noise(before, after) - before
    expected = torch.tensor([0.05, 0.2 / 2**0.5])
    torch.testing.assert_close(change.square().mean((1, 2, 3)).sqrt(), expected, rtol=0.1, atol=0)
    assert not torch.equal(change[0] / 0.05, change[1] / expected[1])
    assert torch.equal(with_equal_noise(before, after), before + change)


def test_lungs_are_found_where_there_are_any() -> None:
    body = np.full((128, 128), -1000, np.int16)
    body[10:118, 10:118] = 40
    lungs = body.copy()
    lungs[30:100, 20:58] = lungs[30:100, 70:108] = -850
    found = lungs_of(np.stack([lungs, body]), 2.5)
    assert found[0, 60, 40] and not found[0, 60, 64] and not found[1].any()

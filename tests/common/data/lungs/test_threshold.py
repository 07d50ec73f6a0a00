from __future__ import annotations

import numpy as np
import pytest

from common.data.lungs import otsu


def test_two_clusters_are_parted_between_them() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(-850, 30, 9000), random.normal(40, 20, 1000)])
    assert -750 < otsu(values) < -50


def test_far_clusters_are_parted_in_the_middle() -> None:
    assert otsu(np.array([0.0] * 70 + [100.0] * 30)) == pytest.approx(50, abs=1)


def test_a_constant_has_some_threshold() -> None:
    assert np.isfinite(otsu(np.full(10, 7.0)))

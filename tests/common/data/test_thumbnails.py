from __future__ import annotations

import numpy as np
import pytest

from common.data.thumbnails import thumbnail


def blocks(seed: int) -> np.ndarray:
    return np.kron(np.random.default_rng(seed).uniform(0, 1, (8, 8)), np.ones((8, 8))).astype(np.float32)


def test_linear_windows_are_not_seen() -> None:
    assert thumbnail(blocks(0)) @ thumbnail(0.5 * blocks(0) + 0.2) == pytest.approx(1.0, abs=1e-5)
    eight_bits = np.rint(255 * blocks(0)).astype(np.uint8)
    assert thumbnail(blocks(0)) @ thumbnail(eight_bits) == pytest.approx(1.0, abs=1e-4)
    assert abs(thumbnail(blocks(0)) @ thumbnail(blocks(1))) < 0.5


def test_constant_pictures_are_like_nothing() -> None:
    assert not thumbnail(np.full((8, 8), 0.3, np.float32)).any()

from __future__ import annotations

import numpy as np
import pytest

from common.data.thumbnails import thumbnail, without_padding


def blocks(seed: int) -> np.ndarray:
    return np.kron(np.random.default_rng(seed).uniform(0, 1, (8, 8)), np.ones((8, 8))).astype(np.float32)


def test_linear_windows_are_not_seen() -> None:
    assert thumbnail(blocks(0)) @ thumbnail(0.5 * blocks(0) + 0.2) == pytest.approx(1.0, abs=1e-5)
    eight_bits = np.rint(255 * blocks(0)).astype(np.uint8)
    assert thumbnail(blocks(0)) @ thumbnail(eight_bits) == pytest.approx(1.0, abs=1e-4)
    assert abs(thumbnail(blocks(0)) @ thumbnail(blocks(1))) < 0.5


def test_constant_pictures_are_like_nothing() -> None:
    assert not thumbnail(np.full((8, 8), 0.3, np.float32)).any()


def test_padding_makes_no_images_alike() -> None:
    """Two slices that differ, in wide black bars: as alike as without them once these are cut off."""
    numbers = np.random.default_rng(0)
    plain = [numbers.random((32, 48)).astype(np.float32) + 1 for _ in range(2)]
    padded = [np.pad(image, ((20, 28), (0, 0))) for image in plain]
    cut = [without_padding(image) for image in padded]
    alike = [float(thumbnail(pair[0]) @ thumbnail(pair[1])) for pair in (plain, cut, padded)]
    assert alike[1] == pytest.approx(alike[0], abs=1e-6) and abs(alike[0]) < 0.3 and alike[2] > 0.9
    assert without_padding(np.zeros((8, 8), np.float32)).shape == (8, 8)

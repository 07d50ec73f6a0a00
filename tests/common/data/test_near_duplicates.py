from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import common.data.patients as duplicates
from common.data.patients import (
    connected,
    near_duplicate_groups,
    scan_groups,
    thumbnail,
    without_padding,
)
from common.data.samples import Sample


def test_chains_share_a_number_in_the_order_of_the_things() -> None:
    assert connected(np.array([(4, 1), (1, 3), (0, 0)]), 6) == [0, 1, 2, 1, 1, 3]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_pictures_that_show_the_same(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (40, 50)).astype(np.uint8) for _ in range(2)]
    brighter = (scenes[1] * 0.5 + 90).astype(np.uint8)
    samples = []
    for number, picture in enumerate((scenes[0], scenes[1], brighter, scenes[0][:, ::-1])):
        samples.append(Sample(tmp_path / f"{number}.png", None, ""))
        Image.fromarray(picture).save(samples[-1].image)
    assert near_duplicate_groups(samples) == [0, 1, 1, 2]
    assert near_duplicate_groups([]) == [] == scan_groups([])


def test_chains_through_most_of_a_set_are_not_followed(tmp_path: Path) -> None:
    """Two scans, one after the other, whose middles are alike but not the same."""
    random = np.random.default_rng(1)
    ends = [random.normal(0, 1, (32, 32)) for _ in range(4)]
    middle = random.normal(0, 1, (32, 32))
    shares = np.sin(np.linspace(0, np.pi, 7)) ** 0.5 * 0.97
    slices = [
        share * middle + (1 - share**2) ** 0.5 * (ends[2 * scan] if place < 3 else ends[2 * scan + 1])
        for scan in range(2)
        for place, share in enumerate(shares)
    ]
    samples = []
    for number, values in enumerate(slices):
        samples.append(Sample(tmp_path / f"{number:02d}.png", None, ""))
        Image.fromarray(np.clip(values * 30 + 128, 0, 255).astype(np.uint8)).save(samples[-1].image)
    correlation = np.corrcoef([values.ravel() for values in slices])
    assert 0.85 < correlation[3, 10] < 0.95 and correlation[6, 7] < 0.2  # the middles; the border
    groups = near_duplicate_groups(samples, 0.8)
    assert not set(groups[:7]) & set(groups[7:])


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

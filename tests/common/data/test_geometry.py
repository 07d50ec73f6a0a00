"""Image and mask in one place, or refused with both geometries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.volume_io import Grid, check_same_place, greatest_offset
from common.errors import UserError

AFFINE = np.array([[0, -0.7, 0, 170.0], [-0.8, 0, 0, 120.0], [0, 0, 2.5, -310.0], [0, 0, 0, 1]])
SHAPE = (512, 400, 60)


def grid(name: str, affine: np.ndarray = AFFINE, shape: tuple[int, int, int] = SHAPE) -> Grid:
    return Grid(Path(name), shape, affine, affine)


def changed(**entries: float) -> np.ndarray:
    affine = AFFINE.copy()
    for name, value in entries.items():
        affine[int(name[1]), int(name[2])] += value
    return affine


def turned(radians: float) -> np.ndarray:
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE


@pytest.mark.parametrize(
    "affine", [AFFINE, changed(_03=2e-3), changed(_23=-0.02), AFFINE.astype(np.float32), turned(1e-5)]
)
def test_what_tools_lose_is_the_same_place(affine: np.ndarray) -> None:
    check_same_place(grid("image.nii.gz"), grid("mask.nii.gz", affine))


def test_the_offset_is_in_voxels_of_the_image_at_the_farthest_corner() -> None:
    assert greatest_offset(grid("a"), grid("b", changed(_13=1.6))) == pytest.approx(2.0)
    assert greatest_offset(grid("a"), grid("b", changed(_22=0.25))) == pytest.approx(59 * 0.1)


@pytest.mark.parametrize("affine", [changed(_23=0.05), changed(_22=0.01), turned(1e-3), changed(_03=0.7)])
def test_another_place_is_refused_with_both_geometries(affine: np.ndarray) -> None:
    with pytest.raises(UserError) as caught:
        check_same_place(grid("image.nii.gz"), grid("mask.nii.gz", affine))
    text = str(caught.value)
    assert text.startswith("mask.nii.gz: lies elsewhere than image.nii.gz, by up to ")
    assert text.count("512 x 400 x 60 voxels of 0.8 x 0.7 x 2.5") + text.count("x 2.51 mm") >= 2
    assert "\n" not in text


def test_another_size_is_said_by_axis() -> None:
    with pytest.raises(UserError, match="59 slices instead of 60"):
        check_same_place(grid("image.nii.gz"), grid("mask.nii.gz", shape=(512, 400, 59)))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize("which", ["mask", "image"])
def test_an_identity_affine_is_named_as_what_it_is(signs: tuple[int, ...], which: str) -> None:
    lost = grid(f"{which}.nii.gz", np.diag([*map(float, signs), 1.0]))
    image, mask = (lost, grid("mask.nii.gz")) if which == "image" else (grid("image.nii.gz"), lost)
    with pytest.raises(UserError, match=rf"^{which}.nii.gz: its affine is the identity"):
        check_same_place(image, mask)

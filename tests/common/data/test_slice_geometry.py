from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.slice_geometry import (
    AXES,
    Frame,
    Geometry,
    Intensity,
    Request,
    from_planes,
    nearest,
    plane_spacing,
    planes_shape,
    resample,
    to_planes,
)
from common.errors import UserError

SHAPE, SPACING = (5, 4, 3), (0.75, 0.5, 2.0)  # along rows (to the back), columns (to the left), slices (up)


def numbered() -> np.ndarray:
    """(H, W, D): the value tells the place, 100 h + 10 w + d."""
    rows, columns, slices = np.indices(SHAPE)
    return 100 * rows + 10 * columns + slices


@pytest.mark.parametrize(
    ("axis", "top_left", "right_of_it", "below_it"),
    [
        ("axial", 1, 11, 101),  # second slice from the feet: columns to the left, rows to the back
        ("coronal", 102, 112, 101),  # second from the front: the head is up, columns to the left
        ("sagittal", 12, 112, 11),  # second from the right: the head is up, columns to the back
    ],
)
def test_planes_lie_as_radiologists_see_them(
    axis: str, top_left: int, right_of_it: int, below_it: int
) -> None:
    plane = to_planes(numbered(), axis)[1]
    assert (plane[0, 0], plane[0, 1], plane[1, 0]) == (top_left, right_of_it, below_it)


@pytest.mark.parametrize("axis", AXES)
def test_planes_go_back_to_where_they_were(axis: str) -> None:
    planes = to_planes(numbered(), axis)
    assert planes.shape == planes_shape(SHAPE, axis)
    assert np.array_equal(from_planes(planes, axis), numbered())


def test_spacing_follows_the_planes() -> None:
    assert [plane_spacing(SPACING, axis) for axis in AXES] == [(0.75, 0.5), (2.0, 0.5), (2.0, 0.75)]


def test_area_averages_where_it_shrinks_and_is_linear_where_it_enlarges() -> None:
    image = np.array([[0, 2, 4, 6], [1, 3, 5, 7]], np.float32)
    assert resample(image, 2, 2, "area").tolist() == [[1, 5], [2, 6]]
    # 1 row from 2, and columns from 2 to 4: averages of rows, then centres at 1/4 and 3/4
    tall = np.array([[0, 8], [4, 12]], np.float32)
    assert resample(tall, 1, 4, "area").tolist() == [[2, 4, 8, 10]]


@pytest.mark.parametrize(("height", "width"), [(4, 6), (2, 3), (8, 4), (4, 12), (1, 1)])
def test_block_means_are_what_the_box_filter_gives(height: int, width: int) -> None:
    image = np.random.default_rng(0).random((8, 12), np.float32)
    box = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    assert resample(image, height, width, "area") == pytest.approx(np.asarray(box), abs=1e-6)


def test_linear_leaves_a_ramp_a_ramp() -> None:
    ramp = np.tile(np.arange(16, dtype=np.float32), (3, 1))
    inner = resample(ramp, 3, 8, "linear")[1, 1:-1]
    assert inner == pytest.approx(2 * np.arange(1, 7) + 0.5)


@pytest.mark.parametrize(("source", "target"), [(3, 7), (7, 3), (5, 5), (1, 4), (10, 4), (4, 10)])
def test_the_nearest_pixel_has_the_nearest_centre(source: int, target: int) -> None:
    centres = (np.arange(target) + 0.5) / target
    distances = np.abs(centres[:, None] - ((np.arange(source) + 0.5) / source)[None])
    found = nearest(source, target)
    assert distances[np.arange(target), found] == pytest.approx(distances.min(1))


def test_resampling_to_mm_is_centred() -> None:
    # Axial planes of 5 x 4 pixels of 0.75 x 0.5 mm are 3.75 x 2 mm: 4 x 2 pixels of 1 mm.
    frame = Frame.of(Geometry(6, spacing=1.0), SHAPE, SPACING)
    assert frame.resized == (4, 2)
    stored = frame.image(np.ones((5, 4)), "area")
    assert np.array_equal(np.argwhere(stored).min(0), (1, 2)) and stored.sum() == 8
    assert np.array_equal(frame.label(np.ones((5, 4), np.uint8)), stored)


def test_larger_planes_are_cropped_around_the_centre() -> None:
    frame = Frame.of(Geometry(2, spacing=0.5), (3, 4, 1), (1.0, 0.5, 1.0))
    assert frame.resized == (6, 4)
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert frame.label(plane).tolist() == [[5, 6], [5, 6]]  # both rows of the square lie in row 1
    assert frame.label_back(np.full((2, 2), 9, np.uint8), 7).tolist() == [[7] * 4, [7, 9, 9, 7], [7] * 4]


def test_nonsense_spacing_is_refused() -> None:
    with pytest.raises(UserError, match="20000 x 10000"):
        Frame.of(Geometry(8, spacing=0.001), (20, 10, 4), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(("fit", "resized"), [("pad", (36, 48)), ("crop", (48, 64)), ("stretch", (48, 48))])
def test_planes_become_square_by_their_mm(fit: str, resized: tuple[int, int]) -> None:
    frame = Frame.of(Geometry(48, "coronal", fit=fit), (7, 80, 12), (1.0, 0.5, 2.5))  # planes of 30 x 40 mm
    assert (frame.plane, frame.resized) == ((12, 80), resized)
    plane = np.zeros((12, 80), np.uint8)
    plane[4:8, 30:50] = 1  # 10 x 10 mm in the middle
    stored = frame.label(plane)
    found = np.argwhere(stored)
    height, width = np.ptp(found, axis=0) + 1
    assert (height == width) == (fit != "stretch")
    assert found.mean(axis=0) == pytest.approx([23.5, 23.5], abs=0.5)
    assert np.array_equal(frame.label_back(stored, 0), plane)


def test_unknown_ways_are_refused() -> None:
    with pytest.raises(UserError, match="fit 'squeeze' is unknown; choose pad, crop, stretch"):
        Geometry(8, fit="squeeze")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Geometry(8, axis="oblique"), "axial, coronal, sagittal"),
        (lambda: Geometry(8, interpolation="cubic"), "area, linear"),
        (lambda: Geometry(0), "image_size 0"),
        (lambda: Geometry(8, spacing=0.0), "spacing 0"),
        (lambda: Geometry(8, spacing=float("nan")), "spacing nan"),
        (lambda: Intensity("gray"), "window, percentile"),
        (lambda: Intensity("window", 5, 5), "below the upper"),
        (lambda: Intensity("percentile", -1, 99), "0..100"),
        (lambda: Request(Path("a.nii"), "mask"), "image, label"),
        (lambda: Request(Path("a.nii"), "image"), "a.nii: an image needs a window"),
        (lambda: Request(Path("a.png"), "label", orientation="up"), "identity"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)

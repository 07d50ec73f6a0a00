from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass

from common.data.slice_geometry import (
    AXES,
    Frame,
    Geometry,
    Intensity,
    Request,
    fit_mask,
    fit_square,
    from_planes,
    image_slices,
    label_slices,
    nearest,
    plane_spacing,
    planes_shape,
    read_source,
    resample,
    resize_mask,
    to_planes,
    unfit_square,
)
from common.errors import UserError
from tests.common.data.made_volumes import (
    hounsfield,
    image,
    label,
    labels,
    save,
)

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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Geometry(8, fit="squeeze"), "fit 'squeeze' is unknown; choose pad, crop, stretch"),
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


def image_of(path: Path, geometry: Geometry, intensity: Intensity | None = None):  # type: ignore[no-untyped-def]
    request = image(path) if intensity is None else image(path, intensity)
    return image_slices(read_source(request, geometry), geometry, request)


def label_of(path: Path, geometry: Geometry):  # type: ignore[no-untyped-def]
    return label_slices(read_source(label(path), geometry), geometry, label(path))


def test_a_window_becomes_the_sixteen_bits(tmp_path: Path) -> None:
    array = np.array([-2000, -200, 200, 600, 3000, -199], np.int16).reshape(6, 1, 1)
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(6), Intensity())
    assert slices.array.shape == (1, 6, 6) and slices.array.dtype == np.uint16
    assert slices.array[0, 0].tolist() == [0, 0, 32768, 65535, 65535, 82]  # 1 / 800 * 65535 = 81.9
    assert (slices.lower, slices.upper, slices.is_hu) == (-200, 600, True)


def test_shrinking_averages_after_windowing(tmp_path: Path) -> None:
    array = np.array([[-1020, 1000], [0, 1000]], np.int16).reshape(2, 2, 1)
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(1), Intensity("window", -1000, 1000))
    assert slices.array[0, 0, 0] == round(65535 * (0 + 1 + 0.5 + 1) / 4)


def test_percentiles_are_of_the_own_voxels(tmp_path: Path) -> None:
    array = np.arange(101, dtype=np.int16).reshape(101, 1, 1) * 10
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(1), Intensity("percentile", 5, 90))
    assert (slices.lower, slices.upper, slices.is_hu) == (50, 900, False)


def test_eight_bits_keep_their_own_range_under_a_window(tmp_path: Path) -> None:
    slices = image_of(save(tmp_path / "a.nii", np.array([[[0]], [[51]]], np.uint8)), Geometry(2))
    assert (slices.lower, slices.upper, slices.is_hu) == (0, 255, False)
    assert slices.array[0, 0].tolist() == [0, 13107]


def test_oblique_volumes_take_the_nearest_axes(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    array = hounsfield()
    nib.save(nib.Nifti1Image(array, turn @ np.diag([-0.5, -0.75, 2, 1])), tmp_path / "oblique.nii")
    source = read_source(image(tmp_path / "oblique.nii"), Geometry(8))
    assert np.array_equal(source.array, array.transpose(1, 0, 2))
    assert source.spacing == pytest.approx((0.75, 0.5, 2.0))


def test_pictures_are_single_slices_brought_upright(tmp_path: Path) -> None:
    gray = np.array([[0, 51], [102, 255]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png")
    request = Request(tmp_path / "a.png", "image", Intensity(), "rot90")
    source = read_source(request, Geometry(2))
    slices = image_slices(source, Geometry(2), request)
    assert source.array.shape == (2, 2, 1)
    assert slices.array[0].tolist() == [[51 * 257, 255 * 257], [0, 102 * 257]]
    assert (slices.lower, slices.upper, slices.is_hu) == (0, 255, False)


def test_labels_of_palette_pictures_are_their_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 2], [1, 2]], np.uint8))
    picture.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30] + [0] * 759)
    picture.save(tmp_path / "a.png")
    slices = label_of(tmp_path / "a.png", Geometry(2))
    assert slices.array[0].tolist() == [[0, 2], [1, 2]] and slices.values == (0, 1, 2)


def test_labels_become_codes_with_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "heart.nii.gz", labels())
    slices = label_of(path, Geometry(5))
    assert slices.values == (0, 420, 600) and slices.array.dtype == np.uint8
    # Columns from 12: centres 1.2, 3.6, 6, 8.4, 10.8; rows from 10: 1, 3, 5, 7, 9.
    true = labels().transpose(1, 0, 2)[[1, 3, 5, 7, 9]][:, [1, 3, 6, 8, 10]]
    assert np.array_equal(np.take(slices.values, slices.array), true.transpose(2, 0, 1))
    assert slices.counts.shape == (8, 3)
    assert np.array_equal(slices.counts[:, 2], (true == 600).sum((0, 1)))


def test_the_background_has_a_code_where_the_file_has_none(tmp_path: Path) -> None:
    slices = label_of(save(tmp_path / "full.nii", np.full((4, 4, 1), 7, np.int16)), Geometry(2, spacing=4.0))
    assert slices.values == (0, 7) and slices.array[0].max() == 1
    assert slices.counts.sum() == 4


def test_255_structures_fit_and_more_do_not(tmp_path: Path) -> None:
    array = np.arange(256, dtype=np.int32).reshape(16, 16, 1) * 3
    slices = label_of(save(tmp_path / "a.nii", array), Geometry(16))
    assert slices.values == tuple(range(0, 768, 3)) and slices.array.max() == 255
    array[0, 0] = 1
    array[5, 5] = 2
    with pytest.raises(UserError, match=r"b\.nii: holds more than 255"):
        label_of(save(tmp_path / "b.nii", array), Geometry(16))


@pytest.mark.parametrize(
    ("value", "says"), [(0.5, "holds 0.5 and other values between"), (-1.0, "value -1 is no label")]
)
def test_what_is_no_label_is_refused(tmp_path: Path, value: float, says: str) -> None:
    array = labels().astype(np.float32)
    array[1, 2, 3] = value
    with pytest.raises(UserError, match=rf"bad\.nii: {says}"):
        label_of(save(tmp_path / "bad.nii", array), Geometry(5))


@pytest.mark.parametrize(
    ("array", "geometry", "intensity", "says"),
    [
        (np.full((4, 4, 2), 7), Geometry(2), Intensity(), "same value"),
        (np.arange(16).reshape(4, 4, 1), Geometry(2, "coronal"), Intensity(), "one slice.*axis axial"),
        ((np.arange(32) > 30).reshape(4, 4, 2), Geometry(2), Intensity("percentile", 1, 90), "both 0"),
    ],
)
def test_unfit_images_are_named(
    tmp_path: Path, array: np.ndarray, geometry: Geometry, intensity: Intensity, says: str
) -> None:
    path = save(tmp_path / "bad.nii.gz", array.astype(np.int16))
    with pytest.raises(UserError, match=rf"bad\.nii\.gz: .*{says}"):
        image_of(path, geometry, intensity)


def test_one_slice_is_served_axially(tmp_path: Path) -> None:
    assert image_of(save(tmp_path / "a.nii", hounsfield()[:, :, :1]), Geometry(4)).array.shape == (1, 4, 4)


def without_voxel_size(path: Path) -> Path:
    """A NIfTI whose header has neither transform nor voxel size."""
    save(path, hounsfield())
    content = bytearray(path.read_bytes())
    content[80:92] = bytes(12)  # pixdim[1..3]
    content[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(bytes(content))
    return path


def test_missing_spacing_matters_only_where_mm_are_asked_for(tmp_path: Path) -> None:
    path = without_voxel_size(tmp_path / "a.nii")
    assert read_source(image(path), Geometry(4)).spacing == (1, 1, 1)
    with pytest.raises(UserError, match=r"a\.nii: has no voxel size.*leave spacing out"):
        read_source(image(path), Geometry(4, spacing=1.0))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: has no voxel size"):
        read_source(image(tmp_path / "a.png"), Geometry(4, spacing=1.0))


def test_other_files_and_turned_volumes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(UserError, match=r"a\.txt: \.txt is not supported"):
        read_source(label(tmp_path / "a.txt"), Geometry(4))
    path = save(tmp_path / "a.nii", labels())
    with pytest.raises(UserError, match=r"a\.nii: orientation rot90 is for pictures"):
        read_source(Request(path, "label", orientation="rot90"), Geometry(4))


def striped(height: int, width: int) -> np.ndarray:
    """0.5 everywhere but for a white first row and first column."""
    image = np.full((height, width), 0.5, np.float32)
    image[0], image[:, 0] = 1.0, 1.0
    return image


def test_padding_keeps_the_aspect_and_the_middle() -> None:
    wide = fit_square(striped(4, 8), 8)
    np.testing.assert_array_equal(wide[2:6], striped(4, 8))
    assert not wide[:2].any() and not wide[6:].any()
    tall = fit_square(striped(8, 4), 8)
    np.testing.assert_array_equal(tall[:, 2:6], striped(8, 4))
    assert fit_square(striped(30, 60), 8).astype(bool).sum() == 32


def test_cropping_takes_the_middle() -> None:
    image = np.arange(8, dtype=np.float32)[None].repeat(4, 0) / 8
    np.testing.assert_array_equal(fit_square(image, 4, "crop"), image[:, 2:6])
    np.testing.assert_array_equal(fit_square(image.T, 4, "crop"), image[:, 2:6].T)


def test_odd_sizes_fill_the_square() -> None:
    for shape in ((7, 5), (5, 7), (1, 9)):
        for fit in ("pad", "crop", "stretch"):
            assert fit_square(np.ones(shape, np.float32), 6, fit).shape == (6, 6)
        assert fit_square(np.ones(shape, np.float32), 6, "crop").all()


def test_stretching_changes_the_aspect() -> None:
    assert fit_square(np.ones((3, 9), np.float32), 6, "stretch").all()
    with pytest.raises(UserError, match="fit 'squeeze' is unknown; choose one of pad, crop, stretch"):
        fit_square(np.ones((3, 9), np.float32), 6, "squeeze")


def test_masks_get_no_new_labels() -> None:
    mask = np.array([[0, 3], [7, 3]], np.uint8)
    assert set(np.unique(resize_mask(mask, 9, 5))) == {0, 3, 7}


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(61, 97), (97, 61), (40, 41), (64, 200)])
def test_there_and_back_within_half_a_pixel(shape: tuple[int, int], fit: str) -> None:
    rows, columns = np.indices(shape)
    row, column = shape[0] * 0.55, shape[1] * 0.46  # off the middle, within all crops
    mask = (((rows - row) / 9) ** 2 + ((columns - column) / 5) ** 2 < 1).astype(np.uint8)
    square = fit_square(mask.astype(np.float32), 48, fit)
    back = unfit_square(square, *shape, fit)
    assert back.shape == shape and back.dtype == np.float32
    assert center_of_mass(back) == pytest.approx(center_of_mass(mask), abs=0.5)
    assert back.sum() == pytest.approx(mask.sum(), rel=0.03)
    placed = fit_mask(mask, 48, fit)  # the image's label lies where the image does
    assert center_of_mass(placed) == pytest.approx(center_of_mass(square), abs=0.5)


def test_only_stretching_changes_the_shape_of_things() -> None:
    rows, columns = np.indices((50, 100))
    disc = (np.hypot(rows - 24, columns - 60) < 15).astype(np.uint8)
    extents = {
        fit: np.ptp(np.nonzero(fit_mask(disc, 50, fit)), axis=1) + 1 for fit in ("pad", "crop", "stretch")
    }
    assert extents["pad"] == pytest.approx([14.5, 14.5], abs=0.5)
    assert extents["crop"] == pytest.approx([29, 29], abs=0.5)
    assert extents["stretch"] == pytest.approx([29, 14.5], abs=0.5)


def test_what_was_cropped_comes_back_black() -> None:
    back = unfit_square(np.ones((8, 8), np.float32), 8, 16, "crop")
    assert back[:, 4:12].all() and not back[:, :3].any() and not back[:, 13:].any()

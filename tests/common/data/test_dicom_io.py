"""DICOM series as they come from the field: right in HU and mm, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRBigEndian,
    RLELossless,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from common.data.dicom_io import dicom_files, in_series, read_series
from common.errors import UserError
from tests.common.data.made_volumes import ct_stack, write_ct

# LPS (-20, -15, 10) is RAS (20, 15, 10); columns run to the left (-x), rows to the back (-y).
AFFINE = np.array([[-0.7, 0, 0, 20], [0, -0.5, 0, 15], [0, 0, 2.0, 10], [0, 0, 0, 1]])


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_series(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    return text


def check_hu(folder: Path, hu: np.ndarray, **settings: Any) -> None:
    """Writes a series of ``hu`` with these settings; what is read has its values."""
    write_ct(folder, hu, **settings)
    assert np.array_equal(read_series(folder).array, hu)


def test_values_places_and_type(tmp_path: Path) -> None:
    hu = ct_stack()
    write_ct(tmp_path, hu)
    volume = read_series(tmp_path)
    assert volume.array.dtype == np.int16 and np.array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
    assert volume.has_spacing


@pytest.mark.parametrize("order", [[5, 0, 3, 1, 4, 2], [5, 4, 3, 2, 1, 0]])
def test_the_order_is_that_of_the_positions_not_of_the_names(tmp_path: Path, order: list[int]) -> None:
    hu = ct_stack()
    positions = [(-20.0, -15.0, 10.0 + 2.0 * index) for index in order]
    write_ct(tmp_path, hu[:, :, order], positions=positions)
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)


@pytest.mark.parametrize("gone", [[2], [2, 3], [1, 4]])
def test_missing_slices_are_refused(tmp_path: Path, gone: list[int]) -> None:
    files = write_ct(tmp_path, ct_stack(depth=9))
    for index in gone:
        files[index].unlink()
    text = refusal(tmp_path)
    assert "not evenly spaced" in text and "most are 2 mm" in text
    assert f"{2 if gone == [2, 3] else 1} seem to be missing" in text


def test_uneven_steps_are_refused(tmp_path: Path) -> None:
    heights = (0.0, 2.0, 4.0, 6.5, 8.5, 10.5)
    write_ct(tmp_path, ct_stack(), positions=[(-20, -15, height) for height in heights])
    text = refusal(tmp_path)
    assert "IM0002.dcm and IM0003.dcm are 2.5 mm apart" in text and "missing" not in text.split(";")[0]


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    heights = [round(0.625 * index, 2) for index in range(6)]
    write_ct(tmp_path, ct_stack(), positions=[(-20, -15, height) for height in heights])
    assert read_series(tmp_path).affine[2, 2] == pytest.approx(0.625, abs=2e-3)


@pytest.mark.parametrize("how", ["copied", "renewed"])
def test_repeated_slices_count_once(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    hu = ct_stack()
    series = generate_uid()
    write_ct(tmp_path, hu, series=series)
    if how == "copied":
        for file in sorted(tmp_path.iterdir()):
            shutil.copy(file, tmp_path / f"copy_{file.name}")
    else:
        write_ct(tmp_path, hu, series=series, name="again{:02d}.dcm")  # new instance UIDs
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, hu) and volume.affine[2, 2] == pytest.approx(2.0)
    assert "6 repeated slices" in caplog.text


def test_two_phases_in_one_series_are_refused(tmp_path: Path) -> None:
    series = generate_uid()
    write_ct(tmp_path, ct_stack(), series=series)
    write_ct(tmp_path, ct_stack()[::-1], series=series, name="late{:02d}.dcm")
    assert "different slices in one place" in refusal(tmp_path)


@pytest.mark.parametrize("said", [True, False])
def test_a_scout_is_no_slice(tmp_path: Path, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    hu, series = ct_stack(), generate_uid()

    def scout(data: Any, index: int) -> None:
        if said:
            data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_ct(tmp_path, hu, series=series)
    shape = (1, 0, 0, 0, 0, -1)
    write_ct(tmp_path, hu[:, :, :1], series=series, name="scout{}.dcm", orientation=shape, edit=scout)
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, hu)
    assert ("1 scouts" if said else "1 slices of another size") in caplog.text


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    positions = [(-20.0, -15.0 + 0.52 * index, 10.0 + 2.0 * index) for index in range(6)]
    write_ct(tmp_path, ct_stack(), positions=positions)
    assert "sheared by 14.6 degrees (a tilted gantry)" in refusal(tmp_path)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    hu = (ct_stack() // 4 * 4).astype(np.int16)
    check_hu(tmp_path, hu, rescale=[(1.0, -1024.0), (2.0, -2000.0), (4.0, -1024.0)])


def test_fractions_of_a_unit_stay(tmp_path: Path) -> None:
    hu = ct_stack() * 0.25
    write_ct(tmp_path, hu, rescale=[(0.25, -1024.0)])
    volume = read_series(tmp_path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, hu, atol=1e-3)


def test_values_beyond_16_bits_do_not_wrap(tmp_path: Path) -> None:
    hu = ct_stack().astype(np.int32)
    hu[3, 4, 2] = 60000
    write_ct(tmp_path, hu)
    volume = read_series(tmp_path)
    assert volume.array.dtype == np.int32 and np.array_equal(volume.array, hu)


@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_hu_do_not_depend_on_how_they_are_stored(
    tmp_path: Path, photometric: str, signed: bool, syntax: str | None
) -> None:
    rescale = [(1.0, 0.0 if signed else -1024.0)]
    stored = {"photometric": photometric, "signed": signed, "syntax": syntax}
    check_hu(tmp_path, ct_stack(), rescale=rescale, **stored)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_pydicom_cannot_decode_is_decoded_by_itk(
    tmp_path: Path, photometric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.data import dicom_io

    hu = ct_stack()
    write_ct(tmp_path, hu, photometric=photometric, syntax=RLELossless)

    def fails(self: pydicom.Dataset) -> np.ndarray:
        raise RuntimeError("no decoder")

    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(fails))
    assert np.array_equal(dicom_io.read_series(tmp_path).array, hu)


def overlaid(data: Any, index: int) -> None:
    """12 bits count; an overlay lies above them."""
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = (np.frombuffer(data.PixelData, "<u2") | 0x1000).tobytes()


def signed_in_twelve_bits(data: Any, index: int) -> None:
    """12 bits count; the four above do not repeat the sign."""
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = (np.frombuffer(data.PixelData, "<u2") & 0x0FFF).tobytes()


def thick(data: Any, index: int) -> None:
    data.SliceThickness = "2" if index % 2 else "2.0"


def without_slope(data: Any, index: int) -> None:
    del data.RescaleSlope


def padded_with_tissue(data: Any, index: int) -> None:
    data.add_new("PixelPaddingValue", "US", 1024)  # 0 HU


@pytest.mark.parametrize(
    ("edit", "settings"),
    [
        (overlaid, {}),
        (signed_in_twelve_bits, {"signed": True, "rescale": [(1.0, 0.0)]}),
        (thick, {}),  # written in two ways: one series
        (without_slope, {}),  # an intercept alone counts
        (padded_with_tissue, {}),  # a padding value within the range of HU changes nothing
    ],
)
def test_odd_headers_change_no_hu(tmp_path: Path, edit: Any, settings: dict[str, Any]) -> None:
    hu = np.clip(ct_stack(), -1000, 1000 if settings else 1500).astype(np.int16)
    assert (hu == 2).any()
    check_hu(tmp_path, hu, edit=edit, **settings)


def test_folders_as_people_have_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hu = ct_stack()
    write_ct(tmp_path / "STUDY1" / "SERIES2", hu, name="IM{:04d}")  # no suffix, two levels down
    for name in ("annotation.xml", "LICENSE", "Thumbs.db", "DICOMDIR", ".DS_Store", "STUDY1/readme.txt"):
        (tmp_path / name).write_bytes(b"no image at all" * 20)
    (tmp_path / "@eaDir").mkdir()
    shutil.copy(tmp_path / "STUDY1" / "SERIES2" / "IM0002", tmp_path / "@eaDir" / "IM0002.dcm")
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, hu)


def test_two_series_are_told_apart_by_uid(tmp_path: Path) -> None:
    for number, name in enumerate(("Lung 1.0", "Soft 1.0")):

        def describe(data: Any, index: int, name: str = name) -> None:
            data.SeriesDescription = name

        write_ct(tmp_path, ct_stack(), name=f"S{number}_{{}}.dcm", edit=describe)
    assert "2 DICOM series in one folder (6 slices 'Lung 1.0'; 6 slices 'Soft 1.0')" in refusal(tmp_path)
    assert sorted(map(len, in_series(dicom_files(tmp_path)).values())) == [6, 6]


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    files = write_ct(tmp_path, ct_stack())
    whole = files[3].read_bytes()
    files[3].write_bytes(whole[:-60])
    assert "IM0003.dcm" in refusal(tmp_path)
    files[3].write_bytes(b"\0" * 400)
    assert "IM0003.dcm" in refusal(tmp_path)
    files[3].write_bytes(whole)
    for share in (0.3, 0.5, 0.6):  # the last slice, cut within its header: no gap would show it
        files[-1].write_bytes(whole[: int(share * len(whole))])
        assert "IM0005.dcm" in refusal(tmp_path)


def test_a_report_in_the_folder_is_no_slice(tmp_path: Path) -> None:
    def report(data: Any, index: int) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
        del data.Rows, data.Columns, data.PixelData

    hu = ct_stack()
    write_ct(tmp_path, hu)
    write_ct(tmp_path, hu[:, :, :1], name="report{}.dcm", edit=report)
    assert np.array_equal(read_series(tmp_path).array, hu)


@pytest.mark.parametrize("kind", ["RGB", "PALETTE COLOR"])
def test_colours_are_refused(tmp_path: Path, kind: str) -> None:
    def colour(data: Any, index: int) -> None:
        data.PhotometricInterpretation = kind
        if kind == "RGB":
            data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
            data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
            data.PixelData = bytes(data.Rows * data.Columns * 3)

    write_ct(tmp_path, ct_stack(), edit=colour)
    assert "in colour" in refusal(tmp_path)


def test_an_oblique_series_lies_where_it_lies(tmp_path: Path) -> None:
    angle = np.deg2rad(20.0)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)
    positions = [np.array([-20.0, -15.0, 10.0]) + 2.0 * index * normal for index in range(6)]
    hu = ct_stack()
    write_ct(tmp_path, hu, positions=positions, orientation=[*row, *column])
    volume = read_series(tmp_path)
    assert np.array_equal(volume.array, hu)
    voxel = volume.affine @ [3, 4, 5, 1]
    place = positions[5] + 3 * 0.7 * row + 4 * 0.5 * column
    np.testing.assert_allclose(voxel[:3], place * [-1, -1, 1], atol=1e-4)


def test_one_slice_has_the_thickness_of_its_header(tmp_path: Path) -> None:
    hu = ct_stack(depth=1)
    file = write_ct(tmp_path, hu, step=3.5, name="1.2.840.{}")[0]  # without a suffix
    volume = read_series(file)
    assert np.array_equal(volume.array, hu) and volume.affine[2, 2] == pytest.approx(3.5)


def test_an_enhanced_file_holds_many_slices(tmp_path: Path) -> None:
    hu = ct_stack()
    file = write_enhanced(tmp_path / "enhanced.dcm", hu)
    volume = read_series(file)
    assert np.array_equal(volume.array, hu)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)


def write_enhanced(path: Path, hu: np.ndarray) -> Path:
    """One multi-frame file; the frames lie in reversed order, each with a rescale of its own."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    order = list(range(hu.shape[2]))[::-1]
    groups = []
    for index in order:
        position, rescale = Dataset(), Dataset()
        position.ImagePositionPatient = [-20.0, -15.0, 10.0 + 2.0 * index]
        rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024 - index
        group = Dataset()
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(group)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.7], 2.0
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])

    def edit(data: Any, index: int) -> None:
        del data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing, data.SliceThickness
        del data.RescaleSlope, data.RescaleIntercept
        data.NumberOfFrames = len(order)
        data.PerFrameFunctionalGroupsSequence = Sequence(groups)
        data.SharedFunctionalGroupsSequence = Sequence([shared])
        stored = np.stack([hu[:, :, number].T.astype(int) + 1024 + number for number in order])
        data.PixelData = stored.astype("<u2").tobytes()

    write_ct(path.parent, hu[:, :, :1], name=path.name, edit=edit)
    return path


def drop(*names: str) -> Any:
    def edit(data: Any, index: int) -> None:
        for name in names:
            delattr(data, name)

    return edit


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_slices_without_a_place_are_refused(tmp_path: Path, name: str) -> None:
    write_ct(tmp_path, ct_stack(), edit=drop(name))
    assert "without ImagePositionPatient or ImageOrientationPatient" in refusal(tmp_path)


def test_slices_without_a_pixel_size_have_none(tmp_path: Path) -> None:
    write_ct(tmp_path, ct_stack(), edit=drop("PixelSpacing"))
    assert not read_series(tmp_path).has_spacing


def test_a_rescale_that_some_slices_lack_is_refused(tmp_path: Path) -> None:
    def some(data: Any, index: int) -> None:
        if index in (2, 4):
            del data.RescaleSlope, data.RescaleIntercept

    write_ct(tmp_path, ct_stack(), edit=some)
    assert "2 of 6 slices have no RescaleIntercept (first IM0002.dcm)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("signed", "padding", "said"), [(True, -2000, -2000), (True, -2000, 63536), (False, 63536, 63536)]
)
def test_padding_outside_the_field_of_view_is_air(
    tmp_path: Path, signed: bool, padding: int, said: int
) -> None:
    hu, intercept = ct_stack(), 0 if signed else -1024
    stored = hu.astype(np.int32)
    stored[:3, 2] = padding + intercept

    def pad(data: Any, index: int) -> None:
        data.add_new("PixelPaddingValue", "SS" if said < 0 else "US", said)

    write_ct(tmp_path, stored, signed=signed, rescale=[(1.0, intercept)], edit=pad)
    hu[:3, 2] = -1024
    volume = read_series(tmp_path)
    assert volume.array.dtype == np.int16 and np.array_equal(volume.array, hu)


def test_padding_of_magnetic_resonance_becomes_its_black(tmp_path: Path) -> None:
    values = (ct_stack() + 1000).astype(np.int16)

    def pad(data: Any, index: int) -> None:
        data.Modality = "MR"
        data.add_new("PixelPaddingValue", "US", 40000)

    stored = values.astype(np.int32)
    stored[0, 0] = 40000
    write_ct(tmp_path, stored, rescale=[(1.0, 0.0)], edit=pad)
    array = read_series(tmp_path).array
    lowest = [values[..., index].ravel()[1:].min() for index in range(6)]
    assert array[0, 0].tolist() == lowest and np.array_equal(array[1:], values[1:])


def test_big_endian_files(tmp_path: Path) -> None:
    hu = ct_stack()
    for file in write_ct(tmp_path, hu):
        data, read = pydicom.Dataset(), pydicom.dcmread(file)
        data.update(read)
        data.file_meta = read.file_meta
        data.PixelData = np.frombuffer(read.PixelData, "<u2").astype(">u2").tobytes()
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.save_as(file, enforce_file_format=True, little_endian=False, implicit_vr=False)
    assert np.array_equal(read_series(tmp_path).array, hu)


@pytest.mark.parametrize("kind", [SegmentationStorage, RTDoseStorage])
def test_segmentations_and_doses_are_no_images(tmp_path: Path, kind: str) -> None:
    def other(data: Any, index: int) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind

    hu = ct_stack()
    write_ct(tmp_path / "series", hu)
    write_ct(tmp_path / "series", hu[:, :, :1], name="other{}.dcm", edit=other)
    assert np.array_equal(read_series(tmp_path / "series").array, hu)
    (tmp_path / "series" / "other0.dcm").rename(tmp_path / "alone.dcm")
    assert "convert segmentations and doses to NIfTI" in refusal(tmp_path / "alone.dcm")


def test_secondary_captures_in_a_series_are_left_out_or_refused(tmp_path: Path) -> None:
    def capture(data: Any, index: int) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        del data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing

    hu, series = ct_stack(), generate_uid()
    write_ct(tmp_path, hu, series=series)
    write_ct(tmp_path, hu[:, :, :1], series=series, name="capture{}.dcm", edit=capture)
    assert np.array_equal(read_series(tmp_path).array, hu)  # its pixels have no size: another kind of slice


def test_left_out_slices_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series = generate_uid()
    for name in ("a{}", "b{}"):
        write_ct(tmp_path, ct_stack(), series=series, name=name)
    for _ in range(3):
        read_series(tmp_path)
    assert caplog.messages == [f"{tmp_path}: left out of the series: 6 repeated slices"]

"""Volume files as they lie on disk, and where their voxels lie; damaged ones are in test_image_io."""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest

from common.data import volume_io as volume_files
from common.data.itk_io import data_files, header_fields
from common.data.samples import is_volume
from common.data.volume_io import (
    Grid,
    Volume,
    check_same_place,
    greatest_offset,
    gunzip,
    open_volume,
    read_volume_file,
    source_parts,
    volume_depth,
    volume_geometry,
    volume_shape,
    write_nifti,
)
from common.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 50, 700_000, np.uint8).tobytes()


def unpacked(path: Path, packed: bytes) -> bytes:
    path.write_bytes(packed)
    return b"".join(gunzip(path))


@pytest.mark.parametrize("chunk", [1, 1000, 2**18])
def test_members_are_read_as_one_and_padding_is_left_out(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_files, "GZIP_CHUNK", chunk)
    parts = [CONTENT[:5000], b"", CONTENT[5000:9000]]
    members = b"".join(gzip.compress(part) for part in parts)
    assert unpacked(tmp_path / "a.gz", members + bytes(40)) == CONTENT[:9000]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda packed: packed[:-9], "ended before"),
        (lambda packed: packed[: len(packed) // 2], "ended before"),
        (lambda packed: b"", "ended before"),
        (lambda packed: packed[:-8] + bytes(4) + packed[-4:], "incorrect data check"),
        (lambda packed: packed[:-4] + bytes(4), "incorrect length check"),
        (lambda packed: packed + b"rubbish behind it", "incorrect header"),
        (lambda packed: b"PK" + packed, "incorrect header"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, zlib.error), match=says):
        unpacked(tmp_path / "a.gz", damage(gzip.compress(CONTENT)))


def volume(dtype: type = np.int16) -> np.ndarray:
    return np.arange(20 * 16 * 6).reshape(20, 16, 6).astype(dtype)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_compressed_volume_is_decompressed_once(
    tmp_path: Path, kind: type[nib.Nifti1Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(kind(volume(), np.diag([0.7, 0.7, 2.5, 1])), tmp_path / "a.nii.gz")
    reads: list[int] = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: (reads.append(size), real(self, size))[1]
    )
    content = read_volume_file(tmp_path / "a.nii.gz")
    assert np.array_equal(content.array, volume()) and content.array.dtype == np.int16
    assert all(0 < size <= 1024 for size in reads)  # nibabel reads headers alone


def test_scaling_byte_order_and_extensions_survive(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(volume(), np.eye(4), header)
    image.header.set_slope_inter(2, -1024)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made" * 100))
    nib.save(image, tmp_path / "a.nii.gz")
    content = read_volume_file(tmp_path / "a.nii.gz")
    assert np.array_equal(content.array, volume() * 2.0 - 1024)


@pytest.mark.parametrize("chunk", [7, 400, 2**18])
def test_voxels_are_found_between_what_is_before_and_behind_them(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_files, "GZIP_CHUNK", chunk)
    nib.save(nib.Nifti1Image(volume(), np.eye(4)), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole + b"more" * 5000))
    assert np.array_equal(read_volume_file(tmp_path / "a.nii.gz").array, volume())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole[:-1]))
    with pytest.raises(UserError, match=r"a\.nii\.gz: .* take 3840 bytes but there are 3839"):
        read_volume_file(tmp_path / "a.nii.gz")


def test_a_missing_voxel_size_is_known(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume(), np.eye(4)), tmp_path / "a.nii")
    assert read_volume_file(tmp_path / "a.nii").has_spacing
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[80:92] = bytes(12)  # pixdim[1..3]; the transform still tells it
    (tmp_path / "a.nii").write_bytes(bytes(content))
    assert read_volume_file(tmp_path / "a.nii").has_spacing
    content[252:256] = bytes(4)  # qform_code, sform_code
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    assert not read_volume_file(tmp_path / "a.nii.gz").has_spacing


def write_mhd(path: Path) -> str:
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(volume().T)), str(path))
    return path.read_text()


def test_the_voxel_size_of_meta_images(tmp_path: Path) -> None:
    text = write_mhd(tmp_path / "a.mhd")
    assert read_volume_file(tmp_path / "a.mhd").has_spacing
    (tmp_path / "a.mhd").write_text(text.replace("ElementSpacing = 1 1 1\n", ""))
    assert not read_volume_file(tmp_path / "a.mhd").has_spacing
    (tmp_path / "a.mhd").write_text(text.replace("ElementSpacing = 1 1 1", "ElementSpacing = 1 0 1"))
    with pytest.raises(UserError, match=r"a\.mhd: its header gives a voxel size of 0 mm"):
        read_volume_file(tmp_path / "a.mhd")


def test_headers_alone_tell_shape_and_axes(tmp_path: Path) -> None:
    image = itk.image_from_array(np.ascontiguousarray(volume().T))
    image.SetSpacing([0.5, 0.75, 2])
    image.SetOrigin([3, 4, 5])
    # File axes run to the head, the left and the back (LPS: z, x, y).
    image.SetDirection(itk.matrix_from_array(np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])))
    itk.imwrite(image, str(tmp_path / "a.mha"))
    shape, affine = volume_geometry(tmp_path / "a.mha")
    content = read_volume_file(tmp_path / "a.mha")
    assert shape == (20, 16, 6) and np.allclose(affine, content.affine)
    assert volume_shape(tmp_path / "a.mha") == Volume.from_file(tmp_path / "a.mha").array.shape == (6, 16, 20)


def test_the_parts_of_a_volume(tmp_path: Path) -> None:
    write_mhd(tmp_path / "a.mhd")
    assert source_parts(tmp_path / "a.mhd") == [tmp_path / "a.mhd", tmp_path / "a.raw"]
    (tmp_path / "a.raw").unlink()
    assert source_parts(tmp_path / "a.mhd") == [tmp_path / "a.mhd"]
    (tmp_path / "series").mkdir()
    for name in ("2.dcm", "1.dcm", ".hidden"):
        (tmp_path / "series" / name).touch()
    assert [file.name for file in source_parts(tmp_path / "series")] == ["1.dcm", "2.dcm"]
    assert source_parts(tmp_path / "a.nii") == [tmp_path / "a.nii"]


# World mm (RAS) of the one marked voxel, and the extents along x, y, z.
EXTENT, SPACING, MARK = (4, 5, 3), (0.5, 0.75, 2.0), (1, 3, 2)


def save(path: Path, axes: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """A volume whose file axis k runs along world axis ``axes[k]`` with direction ``signs[k]``."""
    array = np.zeros(EXTENT, np.int16)
    array[MARK] = 500
    array[0, 0, 0] = -900
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, column] = sign * SPACING[axis]
        affine[axis, 3] = 0 if sign > 0 else (EXTENT[axis] - 1) * SPACING[axis]
    stored = array.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    nib.save(nib.Nifti1Image(stored, affine), path)
    return stored


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("signs", itertools.product((1, -1), repeat=3))
def test_any_axis_order_reaches_display_order_and_comes_back(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    stored = save(tmp_path / "a.nii", axes, signs)
    volume = Volume.from_file(tmp_path / "a.nii")
    # Right-handed world: x to the left of the picture's right side; rows run against y; slices along z.
    assert volume.array.shape == (5, 4, 3) and volume.spacing == (0.75, 0.5, 2.0)
    x, y, z = MARK
    assert volume.array[EXTENT[1] - 1 - y, EXTENT[0] - 1 - x, z] == 500
    assert volume_depth(tmp_path / "a.nii") == 3 and volume_shape(tmp_path / "a.nii") == (5, 4, 3)
    assert np.array_equal(volume.restore(volume.array), stored)


def test_results_get_shape_and_affine_of_their_source(tmp_path: Path) -> None:
    stored = save(tmp_path / "a.nii.gz", (2, 0, 1), (-1, 1, -1))
    volume = Volume.from_file(tmp_path / "a.nii.gz")
    write_nifti(tmp_path / "b.nii.gz", volume, volume.array + 0.4)
    result, source = nib.load(tmp_path / "b.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(result.affine, source.affine) and result.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(result.dataobj), stored)
    write_nifti(tmp_path / "b.nii", volume, volume.array.astype(np.float64) * 1000)
    assert np.asarray(nib.load(tmp_path / "b.nii").dataobj).min() == -32768  # clipped to the type


def test_single_slices_keep_their_number_of_axes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(20, dtype=np.int16).reshape(4, 5) - 30, np.eye(4)), tmp_path / "a.nii")
    volume = Volume.from_file(tmp_path / "a.nii")
    assert volume.array.shape == (5, 4, 1) and volume.restore(volume.array).shape == (4, 5)


@pytest.mark.parametrize(
    ("array", "is_hu", "white"),
    [
        (np.array([-5, 100], np.int16), True, 255),
        (np.array([0, 200], np.uint8), False, 255),
        (np.array([0, 200], np.int16), False, 255),
        (np.array([0, 1900], np.int16), True, 255),
        (np.array([0, 0.7], np.float32), False, 1),
    ],
)
def test_what_values_mean(tmp_path: Path, array: np.ndarray, is_hu: bool, white: float) -> None:
    nib.save(nib.Nifti1Image(array.reshape(2, 1, 1), np.eye(4)), tmp_path / "a.nii")
    volume = Volume.from_file(tmp_path / "a.nii")
    assert volume.is_hu == is_hu and volume.source_range == (0, white)


def test_the_cache_notices_a_changed_file(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", (0, 1, 2), (1, 1, 1))
    first = open_volume(tmp_path / "a.nii")
    assert open_volume(tmp_path / "a.nii") is first
    os.utime(tmp_path / "a.nii", ns=(1, 1))
    assert open_volume(tmp_path / "a.nii") is not first


HEADER = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 3\nElementType = MET_SHORT\n"


@pytest.mark.parametrize(
    ("ending", "names"),
    [
        ("ElementDataFile = a.raw\n", ["a.raw"]),
        ("ElementDataFile = LOCAL\n", []),
        ("ElementDataFile = LIST\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("ElementDataFile = LIST 2D\r\ns2.raw\r\ns3.raw\r\n", ["s2.raw", "s3.raw"]),
        ("ElementDataFile = s%02d.raw 1 3 1\n", ["s1.raw", "s2.raw", "s3.raw"]),
        ("", []),
    ],
)
def test_the_files_that_hold_the_voxels(tmp_path: Path, ending: str, names: list[str]) -> None:
    for name in ("s1.raw", "s2.raw", "s3.raw", "other.raw"):
        (tmp_path / name).touch()
    (tmp_path / "a.mhd").write_text(HEADER + ending)
    assert data_files(tmp_path / "a.mhd") == [tmp_path / name for name in names]


def test_a_header_ends_where_the_voxels_begin(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(HEADER.encode() + b"ElementDataFile = LOCAL\n\xff\nDimSize = 9 9 9\n")
    assert header_fields(tmp_path / "a.mha")["DimSize"] == "4 5 3"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("kept", "reason"), [(-1, "a.mha"), (200, "a.mha"), (40, "its header has no")])
def test_a_meta_image_cut_short_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compressed: bool, kept: int, reason: str
) -> None:
    path = tmp_path / "a.mha"
    array = np.random.default_rng(0).integers(-900, 900, EXTENT).astype(np.int16)
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(array.T)), str(path), compressed)
    assert np.array_equal(read_volume_file(path).array, array)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=reason):
        read_volume_file(path)
    assert capfd.readouterr().err == ""  # ITK is not asked


def write_nrrd(path: Path, array: np.ndarray, fields: str = "", encoding: str = "raw") -> None:
    """NRRD of (X, Y, Z) int16: 0.5 x 0.75 x 2 mm, its first voxel at (1, 2, 3) mm in the space's own axes."""
    kind = "short" if array.dtype == np.int16 else "uchar"
    header = (
        f"NRRD0004\ntype: {kind}\ndimension: {array.ndim}\n{fields}"
        f"sizes: {' '.join(map(str, array.shape))}\nendian: little\nencoding: {encoding}\n"
    )
    data = np.ascontiguousarray(array.T).tobytes()
    data = gzip.compress(data) if encoding == "gzip" else data
    if path.suffix.lower() == ".nhdr":
        path.with_suffix(".raw").write_bytes(data)
        path.write_text(f"{header}data file: {path.with_suffix('.raw').name}\n")
    else:
        path.write_bytes(f"{header}\n".encode() + data)


PLACE = "space directions: (0.5,0,0) (0,0.75,0) (0,0,2)\nspace origin: (1,2,3)\n"
LPS = f"space: left-posterior-superior\n{PLACE}"
PLACED = np.array([[-0.5, 0, 0, -1], [0, -0.75, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1.0]])


def marked() -> np.ndarray:
    array = np.full(EXTENT, -900, np.int16)
    array[MARK] = 500
    return array


def write_as(path: Path, array: np.ndarray) -> None:
    """Writes ``array`` (X, Y, Z) at `PLACED` in the format of the suffix, whatever its case."""
    suffix = path.name.partition(".")[2].lower()
    if suffix in ("nrrd", "nhdr"):
        return write_nrrd(path, array, LPS)
    if suffix == "hdr":
        nib.save(nib.Nifti1Pair(array, PLACED), path.with_name("pair.hdr"))
        path.with_name("pair.img").rename(path.with_suffix(".IMG" if path.suffix.isupper() else ".img"))
    elif suffix.startswith("nii"):
        nib.save(nib.Nifti1Image(array, PLACED), path.with_name(f"pair.{suffix}"))
    else:
        image = itk.image_from_array(np.ascontiguousarray(array.T))
        image.SetSpacing([0.5, 0.75, 2.0])
        image.SetOrigin([1.0, 2.0, 3.0])
        itk.imwrite(image, str(path.with_name(f"pair.{suffix}")))
    path.with_name(f"pair.{suffix}").rename(path)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "hdr", "mhd", "mha", "nrrd", "nhdr"])
@pytest.mark.parametrize("capitals", [False, True])
def test_every_format_says_the_same_in_small_letters_and_capitals(
    tmp_path: Path, suffix: str, capitals: bool
) -> None:
    path = tmp_path / f"a.{suffix.upper() if capitals else suffix}"
    write_as(path, marked())
    content = read_volume_file(path)
    assert np.array_equal(content.array, marked()) and content.has_spacing
    np.testing.assert_allclose(content.affine, PLACED, atol=1e-6)
    shape, affine = volume_geometry(path)
    assert shape == EXTENT and is_volume(path) and volume_depth(path) == 3
    np.testing.assert_allclose(affine, PLACED, atol=1e-6)


@pytest.mark.parametrize("suffix", ["nii", "hdr", "mhd", "mha", "nrrd", "nhdr"])
def test_a_file_of_two_axes_is_one_slice(tmp_path: Path, suffix: str) -> None:
    array = marked()[:, :, 2]
    if suffix in ("nrrd", "nhdr"):
        write_nrrd(tmp_path / f"a.{suffix}", array, "spacings: 0.5 0.75\n")
    elif suffix in ("mhd", "mha"):
        image = itk.image_from_array(np.ascontiguousarray(array.T))
        image.SetSpacing([0.5, 0.75])
        itk.imwrite(image, str(tmp_path / f"a.{suffix}"))
    else:
        write_as(tmp_path / f"a.{suffix}", array)
    slice_ = Volume.from_file(tmp_path / f"a.{suffix}")
    assert slice_.array[:, :, 0].tolist() == array.T.tolist() and slice_.spacing[:2] == (0.75, 0.5)
    assert volume_shape(tmp_path / f"a.{suffix}") == (5, 4, 1)


@pytest.mark.parametrize(("space", "signs"), [("right-anterior", (1, 1)), ("left-anterior", (-1, 1))])
def test_nrrd_lies_where_its_space_says(tmp_path: Path, space: str, signs: tuple[int, int]) -> None:
    write_nrrd(tmp_path / "a.nrrd", marked(), f"space: {space}-superior\n{PLACE}", "gzip")
    content = read_volume_file(tmp_path / "a.nrrd")
    assert np.array_equal(content.array, marked())
    x, y = signs
    expected = [[0.5 * x, 0, 0, x], [0, 0.75 * y, 0, 2 * y], [0, 0, 2, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(content.affine, expected, atol=1e-9)


def test_nrrd_without_sizes_has_no_spacing(tmp_path: Path) -> None:
    write_nrrd(tmp_path / "a.nrrd", marked())
    assert not read_volume_file(tmp_path / "a.nrrd").has_spacing


def test_segments_of_slicer_keep_their_labels(tmp_path: Path) -> None:
    labels = np.zeros(EXTENT, np.uint8)
    labels[MARK], labels[3, 0, 1] = 2, 1
    segments = "Segment0_LabelValue:=2\nSegment0_Layer:=0\nSegment1_LabelValue:=1\nSegment1_Layer:=0\n"
    write_nrrd(tmp_path / "a.seg.nrrd", labels, LPS + segments)
    content = read_volume_file(tmp_path / "a.seg.nrrd")
    assert np.array_equal(content.array, labels)
    layers = np.stack([labels == 1, labels == 2]).astype(np.uint8)
    fields = LPS.replace("directions: ", "directions: none ") + "kinds: list domain domain domain\n"
    write_nrrd(tmp_path / "b.seg.nrrd", layers, fields)
    with pytest.raises(
        UserError, match=r"b\.seg\.nrrd: holds 2 values in each voxel .* segments that overlap"
    ):
        read_volume_file(tmp_path / "b.seg.nrrd")


@pytest.mark.parametrize("compressed", ["voxels", "both"])
def test_voxels_of_a_pair_may_be_compressed(tmp_path: Path, compressed: str) -> None:
    write_as(tmp_path / "a.hdr", marked())
    header = tmp_path / "a.hdr"
    for name in ("a.img", "a.hdr") if compressed == "both" else ("a.img",):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
        header = tmp_path / "a.hdr.gz" if name == "a.hdr" else header
    content = read_volume_file(header)
    assert np.array_equal(content.array, marked()) and source_parts(header) == [header, tmp_path / "a.img.gz"]
    np.testing.assert_allclose(content.affine, PLACED, atol=1e-6)
    whole = (tmp_path / "a.img.gz").read_bytes()
    (tmp_path / "a.img.gz").write_bytes(whole[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        read_volume_file(header)


def test_what_is_missing_of_a_pair_is_named(tmp_path: Path) -> None:
    write_as(tmp_path / "a.hdr", marked())
    (tmp_path / "a.img").unlink()
    with pytest.raises(UserError, match=r"a\.hdr: its voxels, a\.img or a\.img\.gz, are missing"):
        read_volume_file(tmp_path / "a.hdr")
    write_as(tmp_path / "b.nhdr", marked())
    (tmp_path / "b.raw").unlink()
    with pytest.raises(UserError, match=r"b\.nhdr: cannot be read"):
        read_volume_file(tmp_path / "b.nhdr")


def test_analyze_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nib.save(nib.AnalyzeImage(marked(), np.diag([-0.5, 0.75, 2.0, 1.0])), tmp_path / "a.hdr")
    content = read_volume_file(tmp_path / "a.hdr")
    assert np.array_equal(content.array, marked()) and content.affine[0, 0] == -0.5
    assert "a.hdr: Analyze 7.5 does not say which side is which" in caplog.text


def test_scales_and_places_of_spm_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Spm99AnalyzeImage(marked(), np.diag([0.5, 0.75, 2.0, 1.0]))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "a.hdr")
    content = read_volume_file(tmp_path / "a.hdr")
    np.testing.assert_allclose(content.array, marked() * 0.5, atol=0.05)
    assert content.affine[0, 0] == 0.5 and not caplog.messages
    (tmp_path / "a.mat").unlink()
    assert read_volume_file(tmp_path / "a.hdr").affine[0, 0] == -0.5 and len(caplog.messages) == 1


def test_another_kind_of_hdr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_bytes(b"ENVI\nsamples = 4\n" * 40)
    (tmp_path / "a.img").write_bytes(b"0" * 100)
    with pytest.raises(UserError, match=r"a\.hdr: cannot be read \(no header of NIfTI or Analyze 7\.5\)"):
        read_volume_file(tmp_path / "a.hdr")


def test_results_of_a_pair_are_whole_files(tmp_path: Path) -> None:
    write_as(tmp_path / "a.hdr", marked())
    volume = Volume.from_file(tmp_path / "a.hdr")
    write_nifti(tmp_path / "b.nii.gz", volume, volume.array)
    result = nib.load(tmp_path / "b.nii.gz")
    assert np.array_equal(np.asarray(result.dataobj), marked())
    np.testing.assert_allclose(result.affine, PLACED, atol=1e-6)


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

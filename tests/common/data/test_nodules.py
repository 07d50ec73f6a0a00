"""Nodule data sets: layouts, scans, patches and the annotations of LUNA16."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.loaders import SampleIndex
from common.data.nodule_slices import Balance, NoduleSliceDataset
from common.data.nodules import (
    NoduleSample,
    WorldNodule,
    find_nodule_scans,
    nodules_in_mask,
    paint_spheres,
    read_annotations,
    read_nodule_scan,
    voxels_of,
)
from common.data.volume_io import open_volume
from common.errors import UserError
from tests.common.data.made_sets import light
from tests.common.data.made_volumes import HEADER, write_luna, write_picture, write_volume


def test_a_volume_upright_with_its_nodules(tmp_path: Path) -> None:
    """File axes x to the left, y to the back, z to the head: array[z, y, x]."""
    hu, mask = np.full((16, 12, 6), -850), np.zeros((16, 12, 6))
    hu[2:5, 7:9, 1:3], mask[2:5, 7:9, 1:3] = 30, 2
    mask[12, 3, 4] = 3
    write_volume(tmp_path, "phantom_000", hu, mask, masks="labels/nodule")
    (tmp_path / "phantom.json").write_text("{}")
    scan = read_nodule_scan(find_nodule_scans(tmp_path)[0])
    assert scan.hu.shape == (6, 12, 16) and scan.hu.dtype == np.int16 and not scan.nominal_hu
    assert (scan.hu[1:3, 7:9, 2:5] == 30).all() and (scan.hu == 30).sum() == 12
    assert scan.spacing == (2, 1, 1) and scan.mask.dtype == np.uint8
    first, second = scan.nodules
    assert first.centre_voxel == (1.5, 7.5, 3) and first.centre_mm == (3, 7.5, 3)
    assert first.category == "part_solid" and second.category == "spiculated"
    assert first.diameter_mm == pytest.approx((6 / np.pi * 24) ** (1 / 3))
    np.testing.assert_allclose(scan.in_mm(np.array([1.0, 2, 3])), [2, 2, 3])


def test_a_picture_is_a_scan_of_one_slice(tmp_path: Path) -> None:
    image, mask = np.zeros((10, 12)), np.zeros((10, 12))
    image[2:5, 6:8], mask[2:5, 6:8], mask[8, 11] = 255, 1, 1
    write_picture(tmp_path, "LIDC-IDRI-0001_nodule-0", image, mask)
    (sample,) = find_nodule_scans(tmp_path)
    scan = read_nodule_scan(sample)
    assert scan.hu.shape == (1, 10, 12) and scan.nominal_hu
    assert (scan.hu.min(), scan.hu.max()) == (-1000, 400)  # ends of the window
    (nodule,) = scan.nodules  # its two pieces are one
    assert nodule.centre_voxel == pytest.approx((0, 26 / 7, 50 / 7))
    assert nodule.diameter_mm == pytest.approx(2 * np.sqrt(7 * 0.49 / np.pi))
    assert read_nodule_scan(sample, [-1350, 150]).hu.max() == 150


@pytest.mark.parametrize("flipped", [False, True])
def test_spheres_stand_for_missing_masks(tmp_path: Path, flipped: bool) -> None:
    world = "5,14,36" if flipped else "15,26,36"
    folder = write_luna(tmp_path, f"1.2,{world},5\n", flipped=flipped)
    scan = read_nodule_scan(find_nodule_scans(folder)[0])
    (nodule,) = scan.nodules
    place = tuple(round(v) for v in nodule.centre_voxel)
    assert scan.hu[place] == 40 and scan.mask[place] == 1 and nodule.diameter_mm == 5
    assert scan.spacing == (2, 1.5, 1) and nodule.centre_mm[0] == pytest.approx(6)
    assert np.argwhere(scan.mask).mean(0) == pytest.approx(nodule.centre_voxel)


def test_nodules_are_pieces_that_touch() -> None:
    mask = np.zeros((4, 20, 20), np.uint8)
    mask[0, 0:3, 0:3] = mask[1, 4, 4] = 1  # one voxel between: a spike of the same nodule
    mask[3, 15:18, 15] = 1
    assert [n.centre_voxel for n in nodules_in_mask(mask, (1, 1, 1))][1] == (3, 16, 15)
    assert len(nodules_in_mask(mask, (1, 1, 1))) == 2
    assert len(nodules_in_mask(mask, (1, 1, 1), single=True)) == 1
    assert nodules_in_mask(mask * 0, (1, 1, 1)) == nodules_in_mask(mask * 0, (1, 1, 1), single=True) == ()


def test_bad_scans(tmp_path: Path) -> None:
    hu, mask = np.full((8, 8, 4), -850), np.zeros((8, 8, 4))
    mask[1, 1, 1] = 7
    hu[0, 0, 0] = 3
    write_volume(tmp_path / "a", "phantom_000", hu, mask, masks="labels/nodule")
    (tmp_path / "a" / "phantom.json").write_text("{}")
    with pytest.raises(UserError, match=r"phantom_000\.nii\.gz: 7 is no known category; .* 2 part_solid"):
        read_nodule_scan(find_nodule_scans(tmp_path / "a")[0])
    write_volume(tmp_path / "b", "p", hu, mask[:, :, :3])
    with pytest.raises(UserError, match=r"p\.nii\.gz: does not fit .*p\.nii\.gz: 3 slices instead of 4"):
        read_nodule_scan(find_nodule_scans(tmp_path / "b")[0])
    write_volume(tmp_path / "d", "p", np.full((8, 8, 4), -850), mask)
    with pytest.raises(UserError, match=r"p\.nii\.gz: every pixel has the same value"):
        read_nodule_scan(find_nodule_scans(tmp_path / "d")[0])
    write_picture(tmp_path / "e", "p", np.full((8, 8), 90), np.zeros((8, 8)))
    with pytest.raises(UserError, match=r"p\.png: every pixel has the same value"):
        read_nodule_scan(find_nodule_scans(tmp_path / "e")[0])
    folder = write_luna(tmp_path / "c", "1.2,0,0,0,5\n")
    with pytest.raises(UserError, match=r"1\.2\.mhd: the annotation at \(0, 0, 0\) mm lies outside the scan"):
        read_nodule_scan(find_nodule_scans(folder)[0])
    (folder / "1.2.raw").unlink()
    with pytest.raises(UserError, match=r"1\.2\.mhd: its data file 1\.2\.raw is missing"):
        read_nodule_scan(find_nodule_scans(folder)[0])


@pytest.mark.realdata
@pytest.mark.slow
def test_the_luna_annotation_lies_in_its_mask(shared_data: Path) -> None:
    (sample,) = find_nodule_scans(shared_data / "luna")
    assert sample.mask is not None
    scan = read_nodule_scan(sample)
    (annotated,) = scan.nodules
    assert scan.hu.shape == (133, 512, 512) and scan.spacing == (2.5, 0.703125, 0.703125)
    assert scan.mask[tuple(np.rint(annotated.centre_voxel).astype(int))] == 1
    (drawn,) = nodules_in_mask(scan.mask, scan.spacing)
    assert np.linalg.norm(np.subtract(annotated.centre_mm, drawn.centre_mm)) < 0.2
    assert drawn.diameter_mm == pytest.approx(annotated.diameter_mm, rel=0.1)


BLANK = np.zeros((8, 8, 3))


def test_lidc_crops_know_their_patient(tmp_path: Path) -> None:
    for name in ("LIDC-IDRI-0003_nodule-1", "LIDC-IDRI-0003_nodule-12", "LIDC-IDRI-0011_nodule-9"):
        write_picture(tmp_path / "slices", name, BLANK[..., 0], BLANK[..., 0])
    found = find_nodule_scans(tmp_path / "slices")
    assert [sample.patient for sample in found] == ["LIDC-IDRI-0003"] * 2 + ["LIDC-IDRI-0011"]
    assert found[0].single and found[0].name == "lidc-LIDC-IDRI-0003_nodule-1"
    write_volume(tmp_path / "boxes", "LIDC-IDRI-0012_R_10", BLANK, BLANK)
    boxes = find_nodule_scans(tmp_path / "boxes")
    assert [sample.patient for sample in boxes] == ["LIDC-IDRI-0012"] and boxes[0].single


def test_phantoms_have_kinds(tmp_path: Path) -> None:
    write_volume(tmp_path, "phantom_000", BLANK, BLANK, masks="labels/nodule")
    (tmp_path / "phantom.json").write_text("{}")
    (sample,) = find_nodule_scans(tmp_path)
    assert sample.kinds == ("solid", "part_solid", "spiculated") and sample.patient == "phantom_000"
    assert sample.mask == tmp_path / "labels" / "nodule" / "phantom_000.nii.gz" and not sample.single


def test_own_pairs_with_categories(tmp_path: Path) -> None:
    write_volume(tmp_path, "p1", BLANK, BLANK)
    assert find_nodule_scans(tmp_path)[0].kinds == ()
    (tmp_path / "categories.json").write_text(json.dumps(["benign", "malignant"]))
    assert find_nodule_scans(tmp_path)[0].kinds == ("benign", "malignant")
    (tmp_path / "categories.json").write_text("{}")
    with pytest.raises(UserError, match=r"categories\.json: needs a list of names"):
        find_nodule_scans(tmp_path)


def test_luna_scans_with_annotations_and_masks(tmp_path: Path) -> None:
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")
    (sample,) = find_nodule_scans(folder)
    assert sample.mask is None and sample.patient == "1.2" and sample.annotated
    assert sample.annotations == (WorldNodule(15, 26, 36, 5),)
    affine = open_volume(folder / "1.2.mhd").affine
    nib.save(nib.Nifti1Image(np.zeros((12, 10, 8), np.uint8), affine), folder / "some_mask.nii.gz")
    (sample,) = find_nodule_scans(folder)
    assert sample.mask == folder / "some_mask.nii.gz"  # by its voxel grid
    nib.save(nib.Nifti1Image(np.zeros((12, 10, 8), np.uint8), np.eye(4)), folder / "other.nii.gz")
    with pytest.raises(UserError, match=r"other\.nii\.gz: fits no scan"):
        find_nodule_scans(folder)


def test_lunas_excluded_findings_are_read_where_they_lie_beside(tmp_path: Path) -> None:
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")
    assert find_nodule_scans(folder)[0].excluded == ()
    (folder / "annotations_excluded.csv").write_text(HEADER + "1.2,11,21.5,32,-1\n9.9,1,2,3,4\n")
    (sample,) = find_nodule_scans(folder)
    assert sample.excluded == (WorldNodule(11, 21.5, 32, 10),)
    scan = read_nodule_scan(sample)
    (finding,) = scan.excluded
    assert finding.centre_voxel == pytest.approx((1, 1, 1)) and finding.diameter_mm == 10
    assert len(scan.nodules) == 1 and scan.mask[1, 1, 1] == 0
    near = (np.indices(scan.mask.shape).transpose(1, 2, 3, 0) - 1) * scan.spacing
    assert np.array_equal(scan.excluded_mask(), np.linalg.norm(near, axis=-1) <= 5)
    (folder / "annotations_excluded.csv").write_text(HEADER + "1.2,0,0,0,3\n")
    with pytest.raises(UserError, match=r"outside the scan .* correct it in annotations_excluded\.csv"):
        read_nodule_scan(find_nodule_scans(folder)[0])


def test_luna_says_that_it_needs_no_patient_pattern(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")
    assert find_nodule_scans(folder)[0].patient == "1.2" and not caplog.records
    assert find_nodule_scans(folder, patient_pattern=r"^(\d)")[0].patient == "1.2"
    (record,) = caplog.records
    assert "patient_pattern is not used" in record.getMessage()


def test_luna_scans_without_annotations(tmp_path: Path) -> None:
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")
    write_luna(folder / "subset1", "", series="1.3")
    (folder / "subset1" / "annotations.csv").unlink()
    write_luna(folder / "seg-lungs-LUNA16", "", series="1.2")  # lung masks are no scans
    (folder / "seg-lungs-LUNA16" / "annotations.csv").unlink()
    with pytest.raises(UserError, match=r"1\.3\.mhd: its series has no annotations .*\(1 of 2 scans\)"):
        find_nodule_scans(folder)
    found = find_nodule_scans(folder, unannotated="normal")
    assert [(sample.patient, len(sample.annotations)) for sample in found] == [("1.2", 1), ("1.3", 0)]


def test_folders_that_fit_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_nodule_scans(tmp_path / "missing")
    with pytest.raises(UserError, match="no known layout"):
        find_nodule_scans(tmp_path)
    with pytest.raises(UserError, match="layout 'x' is unknown"):
        find_nodule_scans(tmp_path, "x")
    (tmp_path / "annotations.csv").write_text("")
    with pytest.raises(UserError, match=r"no \.mhd scans"):
        find_nodule_scans(tmp_path)
    write_volume(tmp_path / "own", "p1", BLANK, BLANK)
    (tmp_path / "own" / "masks" / "p1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"p1\.nii\.gz: image without mask"):
        find_nodule_scans(tmp_path / "own")


def test_several_slices_of_a_nodule_are_one_patients(tmp_path: Path) -> None:
    for name in ("LIDC-IDRI-0001_nodule-0-3", "LIDC-IDRI-0001_nodule-0-16", "LIDC-IDRI-0002_nodule-1-10"):
        write_picture(tmp_path, name, BLANK[..., 0], BLANK[..., 0])
    found = find_nodule_scans(tmp_path)
    assert [sample.patient for sample in found] == ["LIDC-IDRI-0001"] * 2 + ["LIDC-IDRI-0002"]
    assert all(sample.single and sample.group == "lidc" for sample in found)


SIZE = 16


@pytest.fixture
def scans(tmp_path: Path) -> list[NoduleSample]:
    """Three scans of 32 x 40 x 20 voxels, each with a bright nodule of 4 x 4 pixels in 3 slices."""
    for number in range(3):
        hu, mask = np.full((32, 40, 20), -900), np.zeros((32, 40, 20))
        mask[20:24, 8 + number : 12 + number, 5:8] = 1
        hu[mask > 0] = 400
        write_volume(tmp_path, f"p{number}", hu, mask)
    return find_nodule_scans(tmp_path)


def test_slices_are_balanced(scans: list[NoduleSample]) -> None:
    data = NoduleSliceDataset(scans, SIZE, balance=(0.5, 0.7))
    has = [bool(part.mask.any()) for part in data.slices]
    assert sum(has) == 9 and len(has) == 18 and data.dropped == 60 - 18
    assert not data.nominal_hu
    assert [part.sample.index for part in data.slices[:6]] != list(range(6))
    assert {sample.index for sample in data.samples if sample.patient == "p1"} >= {5, 6, 7}
    again = NoduleSliceDataset(scans, SIZE, balance=(0.5, 0.7))
    assert again.samples == data.samples
    other = NoduleSliceDataset(scans, SIZE, balance=(0.5, 0.7), seed=1)
    assert other.samples != data.samples
    assert len(NoduleSliceDataset(scans, SIZE, balance=(0.0, 0.7))) == 9
    assert len(NoduleSliceDataset(scans, SIZE, balance=(0.9, 0.7))) == 60  # there are no more


def test_patches_show_the_nodule_as_often_as_asked(scans: list[NoduleSample]) -> None:
    data = NoduleSliceDataset(scans, SIZE, balance=(0.0, 0.7))
    shown = [
        bool(data[SampleIndex(sample, epoch)]["label"].any()) for epoch in range(40) for sample in range(9)
    ]
    # The others go anywhere; a window of 16 x 16 in 40 x 32 meets the nodule rarely, and is within 0.05 here.
    assert 0.7 < np.mean(shown) < 0.9
    always = NoduleSliceDataset(scans, SIZE, balance=(0.0, 1.0))
    assert all(always[SampleIndex(0, epoch)]["label"].any() for epoch in range(40))
    corners = {
        tuple(np.argwhere(always[SampleIndex(0, epoch)]["label"][0].numpy())[0]) for epoch in range(40)
    }
    assert len(corners) > 20  # not always in the middle


def test_items(scans: list[NoduleSample]) -> None:
    data = NoduleSliceDataset(scans, SIZE, window=[-1000, 400], augmentation=light(SIZE), seed=3)
    item = data[1]
    assert item["image"].shape == item["label"].shape == (1, SIZE, SIZE)
    assert item["image"].dtype == item["label"].dtype == torch.float32 and item["sample"] == 1
    assert item["image"].unique().tolist() == pytest.approx([2 * 100 / 1400 - 1, 1.0])
    assert torch.equal(item["label"] > 0, item["image"] == 1.0)
    assert torch.equal(data[1]["image"], item["image"])  # an index always gives the same
    first, second = data[SampleIndex(1, 0)], data[SampleIndex(1, 0)]
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], data[SampleIndex(1, 1)]["image"])
    overlap = (first["label"] > 0) & (first["image"] > 0)
    assert overlap.sum() > 0.6 * (first["label"] > 0).sum()  # image and mask move together


def test_slices_smaller_than_the_patch_are_surrounded_by_air(tmp_path: Path) -> None:
    image, mask = np.arange(60, 180).reshape(10, 12), np.zeros((10, 12))
    mask[4:6, 4:6] = 1
    write_picture(tmp_path, "a_1", image, mask)
    data = NoduleSliceDataset(find_nodule_scans(tmp_path), SIZE)
    assert data.nominal_hu
    for visit in (0, SampleIndex(0, 0)):
        item = data[visit]
        assert (item["image"] > -1).sum() == 120 and item["label"].sum() == 4
        rows, columns = np.nonzero(item["image"][0].numpy() > -1)
        assert (rows.min(), columns.min()) == (3, 2)


def test_settings_out_of_range(scans: list[NoduleSample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"normal_share 1\.0: give a share"):
        Balance(1.0, 0.5)
    with pytest.raises(UserError, match=r"foreground -0\.1: give a share"):
        Balance(0.5, -0.1)
    write_picture(tmp_path / "empty", "a_1", np.arange(60, 124).reshape(8, 8), np.zeros((8, 8)))
    with pytest.raises(UserError, match="no slice has a nodule"):
        NoduleSliceDataset(find_nodule_scans(tmp_path / "empty"), SIZE)


def test_slices_with_an_excluded_finding_come_only_where_there_are_no_others(tmp_path: Path) -> None:
    """Eight slices 2 mm apart from 30 mm on: a nodule of 5 mm in 2 to 4, findings in 6, or in all others."""
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")

    def normal(*places: str) -> list[int]:
        lines = "".join(f"1.2,12,22,{z},{size}\n" for z, size in (place.split() for place in places))
        (folder / "annotations_excluded.csv").write_text(HEADER + lines)
        data = NoduleSliceDataset(find_nodule_scans(folder), SIZE, balance=(0.8, 0.7))
        return [int(s.sample.index) for s in data.slices if not s.mask.any()]

    assert normal() == [0, 1, 5, 6, 7]
    assert normal("42 1") == [0, 1, 5, 7]
    assert normal("36 40") == normal()


def test_annotations_by_series(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(HEADER + "b,1,2,3,4\na,-1.5,0,9,6\nb,5,6,7,8\n")
    assert read_annotations(path) == {
        "b": (WorldNodule(1, 2, 3, 4), WorldNodule(5, 6, 7, 8)),
        "a": (WorldNodule(-1.5, 0, 9, 6),),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seriesuid,coordX,coordY,coordZ\na,1,2,3\n", "no column diameter_mm"),
        (HEADER + "a,1,2,3,4\nb,1,x,3,4\n", "line 3 holds no coordinates"),
        (HEADER + "a,1,2,3\n", "line 2 holds no coordinates"),
        (HEADER + "a,1,2,3,0\n", "line 2 has the diameter 0 mm"),
        (HEADER + "a,1,2,nan,4\n", "line 2 has the diameter 4 mm"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"annotations\.csv: {problem}"):
        read_annotations(path)


def test_excluded_findings_may_have_no_diameter(tmp_path: Path) -> None:
    path = tmp_path / "annotations_excluded.csv"
    path.write_text(HEADER + "a,1,2,3,-1\na,1,2,9,2.5\n")
    assert read_annotations(path, excluded=True)["a"] == (WorldNodule(1, 2, 3, 10), WorldNodule(1, 2, 9, 2.5))
    with pytest.raises(UserError, match=r"annotations_excluded\.csv: line 2 has the diameter -1 mm"):
        read_annotations(path)


@pytest.mark.parametrize(("flipped", "world"), [(False, (15, 26, 36)), (True, (5, 14, 36))])
def test_world_to_voxel_follows_the_direction(
    tmp_path: Path, flipped: bool, world: tuple[float, float, float]
) -> None:
    """Voxel (3, 4, 5) of the file lies at origin +- index x spacing; the display is upright either way."""
    folder = write_luna(tmp_path, "", flipped=flipped)
    volume = open_volume(folder / "1.2.mhd")
    voxels = voxels_of([WorldNodule(*world, 3.0)], volume, folder / "1.2.mhd")
    expected = (3, 9 - 4, 11 - 5) if flipped else (3, 4, 5)
    np.testing.assert_allclose(voxels, [expected], atol=1e-6)
    slice_, row, column = expected
    assert volume.array[row, column, slice_] == 40


def test_an_annotation_outside_is_refused(tmp_path: Path) -> None:
    folder = write_luna(tmp_path, "")
    path = folder / "1.2.mhd"
    inside = WorldNodule(10 - 0.49, 20, 30, 3)
    assert voxels_of([inside], open_volume(path), path)[0, 2] == pytest.approx(-0.49)
    with pytest.raises(UserError, match=r"1\.2\.mhd: the annotation at \(10, 20, 46\) mm lies outside"):
        voxels_of([inside, WorldNodule(10, 20, 46, 3)], open_volume(path), path)


def test_spheres_have_their_volume_and_stay_within() -> None:
    mask = paint_spheres((20, 40, 40), (2, 1, 1), np.array([[10.0, 20.0, 15.0]]), [16.0])
    assert mask.sum() * 2 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.04)
    assert mask[10, 20, 7] and mask[10, 20, 23] and not mask[10, 20, 6] and not mask[15, 20, 15]
    assert mask[14, 20, 15] and not mask[10, 20, 24]
    corner = paint_spheres((4, 4, 4), (5, 5, 5), np.array([[0.0, 3.4, 1.6]]), [1.0])
    assert np.argwhere(corner).tolist() == [[0, 3, 2]]  # smaller than a voxel: the one at its centre

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.luna import WorldNodule
from common.data.nodule_layouts import find_nodule_scans
from common.data.nodule_scan import read_nodule_scan
from common.data.volumes import open_volume
from common.errors import UserError
from tests.common.data.made_scans import HEADER, write_luna, write_picture, write_volume

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


@pytest.mark.realdata
def test_shared_crops(shared_data: Path) -> None:
    slices = find_nodule_scans(shared_data / "nodule_slices")
    assert len(slices) == 921 and len({sample.patient for sample in slices}) == 526
    boxes = find_nodule_scans(shared_data / "nodule_volumes")
    assert len(boxes) == 320 and len({sample.patient for sample in boxes}) == 170


def test_several_slices_of_a_nodule_are_one_patients(tmp_path: Path) -> None:
    for name in ("LIDC-IDRI-0001_nodule-0-3", "LIDC-IDRI-0001_nodule-0-16", "LIDC-IDRI-0002_nodule-1-10"):
        write_picture(tmp_path, name, BLANK[..., 0], BLANK[..., 0])
    found = find_nodule_scans(tmp_path)
    assert [sample.patient for sample in found] == ["LIDC-IDRI-0001"] * 2 + ["LIDC-IDRI-0002"]
    assert all(sample.single and sample.group == "lidc" for sample in found)

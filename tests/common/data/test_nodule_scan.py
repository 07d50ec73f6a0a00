from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.nodule_layouts import find_nodule_scans
from common.data.nodule_scan import nodules_of, read_nodule_scan
from common.errors import UserError
from tests.common.data.made_scans import write_luna, write_picture, write_volume


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
    assert [n.centre_voxel for n in nodules_of(mask, (1, 1, 1))][1] == (3, 16, 15)
    assert len(nodules_of(mask, (1, 1, 1))) == 2
    assert len(nodules_of(mask, (1, 1, 1), single=True)) == 1
    assert nodules_of(mask * 0, (1, 1, 1)) == nodules_of(mask * 0, (1, 1, 1), single=True) == ()


def test_bad_scans(tmp_path: Path) -> None:
    hu, mask = np.full((8, 8, 4), -850), np.zeros((8, 8, 4))
    mask[1, 1, 1] = 7
    hu[0, 0, 0] = 3
    write_volume(tmp_path / "a", "phantom_000", hu, mask, masks="labels/nodule")
    (tmp_path / "a" / "phantom.json").write_text("{}")
    with pytest.raises(UserError, match=r"phantom_000\.nii\.gz: 7 is no known category; .* 2 part_solid"):
        read_nodule_scan(find_nodule_scans(tmp_path / "a")[0])
    write_volume(tmp_path / "b", "p", hu, mask[:, :, :3])
    with pytest.raises(UserError, match=r"p\.nii\.gz: the mask is 3 x 8 x 8 but p\.nii\.gz is 4 x 8 x 8"):
        read_nodule_scan(find_nodule_scans(tmp_path / "b")[0])
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
    (drawn,) = nodules_of(scan.mask, scan.spacing)
    assert np.linalg.norm(np.subtract(annotated.centre_mm, drawn.centre_mm)) < 0.2
    assert drawn.diameter_mm == pytest.approx(annotated.diameter_mm, rel=0.1)

"""Folders as people have them: every image is found, what is none is left out and counted in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from common.data.image_layouts import find_images
from common.data.layouts import (
    find_samples,
    find_volumes,
    images_below,
    images_in,
    labels_beside,
    warn_of_left_out,
)
from common.data.nodules import find_nodule_scans
from common.data.volume_io import open_volume
from common.errors import UserError
from common.inference.datasets import find_sources
from common.trust.image_files import image_files
from tests.common.data.made_dicom import ct_stack, write_ct

JUNK = ("DICOMDIR", "LICENSE", "notes.xml", "Thumbs.db", ".DS_Store")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image at all" * 20)


def volume(path: Path, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(60, dtype=np.int16).reshape(4, 5, 3) * 30 - 1000
    nib.save(nib.Nifti1Image((array > 0).astype(np.uint8) if label else array, np.eye(4)), path)


def names(folder: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def series(folder: Path, patient: str, uid: str = "", name: str = "IM{:04d}", seed: int = 0) -> None:
    def edit(data: Any, index: int) -> None:
        data.PatientID = patient

    write_ct(folder, ct_stack() + np.int16(7 * seed), name=name, series=uid, edit=edit)


def test_series_are_found_at_any_depth_and_by_their_content(tmp_path: Path) -> None:
    series(tmp_path / "p1" / "STUDY" / "2024" / "SE2", "A")
    series(tmp_path / "p1" / "STUDY" / "2024" / "SE3", "A", name="1.2.840.{}")
    series(tmp_path / "p2", "B", name="I{}.IMA")
    touch(tmp_path, *JUNK, *(f"p2/{name}" for name in JUNK))
    assert names(tmp_path, images_below(tmp_path)) == ["p1/STUDY/2024/SE2", "p1/STUDY/2024/SE3", "p2"]
    assert names(tmp_path, images_in(tmp_path)) == ["p1", "p2"]


def test_a_series_in_several_folders_is_one_image(tmp_path: Path) -> None:
    uid = generate_uid()
    series(tmp_path / "p1" / "DIR0", "A", uid)
    series(tmp_path / "p1" / "DIR1", "A", uid, name="JM{}")
    series(tmp_path / "p2", "B")
    assert names(tmp_path, images_below(tmp_path)) == ["p1", "p2"]


def test_slices_of_several_series_in_one_folder_are_single_images_without_the_scout(tmp_path: Path) -> None:
    def scout(data: Any, index: int) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_ct(tmp_path / "p1", ct_stack(depth=2), name="a{}")
    write_ct(tmp_path / "p1", ct_stack(depth=1), name="b{}")
    write_ct(tmp_path / "p1", ct_stack(depth=1), name="c{}", edit=scout)
    assert names(tmp_path, images_below(tmp_path)) == ["p1/a0", "p1/a1", "p1/b0"]


def test_a_scout_or_a_preview_beside_a_series_changes_nothing(tmp_path: Path) -> None:
    def scout(data: Any, index: int) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    for number in range(2):
        series(tmp_path / f"p{number}", "A", name="b{}")
        write_ct(tmp_path / f"p{number}", ct_stack(depth=1), name="a{}", edit=scout)
        touch(tmp_path / f"p{number}", "preview.png")
    assert names(tmp_path, images_below(tmp_path)) == ["p0", "p1"]


def test_a_folder_for_each_slice_is_one_image(tmp_path: Path) -> None:
    uid, hu = generate_uid(), ct_stack(depth=3)
    for index in range(3):
        place = [(-20.0, -15.0, 2.0 * index)]
        write_ct(tmp_path / "p1" / f"{index:08d}", hu[:, :, [index]], name="IM", series=uid, positions=place)
    assert names(tmp_path, images_below(tmp_path)) == ["p1"]
    assert open_volume(tmp_path / "p1").depth == 3


@pytest.mark.parametrize(
    "system", ["@eaDir", "__MACOSX", ".AppleDouble", ".ipynb_checkpoints", "#recycle", "a/.hidden"]
)
def test_system_folders_hold_no_images(tmp_path: Path, system: str) -> None:
    touch(tmp_path, "a.png", "._a.png", f"{system}/b.png", f"{system}/c/d.nii.gz")
    assert names(tmp_path, images_below(tmp_path)) == ["a.png"]
    assert names(tmp_path, images_in(tmp_path)) == ["a.png"]
    assert names(tmp_path, image_files(tmp_path)) == ["a.png"]


def test_links_are_followed(tmp_path: Path) -> None:
    for number in range(1, 5):
        volume(tmp_path / "disk" / f"case{number}" / "ct.nii.gz")
        volume(tmp_path / "disk" / f"case{number}" / "label.nii.gz", label=True)
    (tmp_path / "set").mkdir()
    for number in range(1, 5):
        (tmp_path / "set" / f"case{number}").symlink_to(tmp_path / "disk" / f"case{number}")
    found = find_volumes(tmp_path / "set")
    assert [record.patient for record in found] == ["case1", "case2", "case3", "case4"]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_links_that_lead_back_are_refused(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "set/case1/ct.nii.gz")
    (tmp_path / "set" / "case1" / "again").symlink_to(target)
    with pytest.raises(UserError, match=r"case1/again: is a link to a folder above it .*remove the link"):
        images_below(tmp_path / "set")


def test_two_links_to_each_other_end(tmp_path: Path) -> None:
    touch(tmp_path, "set/a/1.png", "b/2.png")
    (tmp_path / "set" / "a" / "there").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "set" / "a")
    with pytest.raises(UserError, match=r"there/back: is a link to a folder above it"):
        images_below(tmp_path / "set")


def test_links_to_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "case1.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(UserError, match=r"case1\.nii\.gz: is a link to a file that is not there"):
        images_below(tmp_path)


def test_what_is_left_out_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.png", "b.png", "c.NRRD", "splits.json", *JUNK, "@eaDir/x.png")
    warn_of_left_out(tmp_path, [tmp_path / "a.png", None])
    assert caplog.messages == [
        f"{tmp_path}: left out: 2 images (b.png, c.NRRD), 3 other files (DICOMDIR, LICENSE, notes.xml), "
        "3 hidden files (.DS_Store, @eaDir/x.png, Thumbs.db)"
    ]
    caplog.clear()
    warn_of_left_out(tmp_path, [])
    assert "3 images (a.png, b.png, c.NRRD)" in caplog.text


def test_volumes_without_label_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        volume(tmp_path / f"case{number}.nii.gz")
    for number in range(2):
        volume(tmp_path / f"case{number}_seg.nii.gz", label=True)
    assert len(find_volumes(tmp_path)) == 2
    assert caplog.messages == [f"{tmp_path}: left out: 2 images (case2.nii.gz, case3.nii.gz)"]
    caplog.clear()
    assert len(find_samples(tmp_path)) == 6
    assert caplog.messages == [f"{tmp_path}: left out: 2 images (case2.nii.gz, case3.nii.gz)"]


def nested_pairs(folder: Path) -> None:
    for number, patient in enumerate(("A", "B")):
        series(folder / "images" / f"case{number}" / "STUDY" / "SERIES", patient, seed=number)
        touch(folder / "images" / f"case{number}", *JUNK)
        volume(folder / "masks" / f"case{number}.nii.gz", label=True)


def test_the_patient_of_a_folder_is_one_patient_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nested_pairs(tmp_path)
    for found in (find_samples(tmp_path), find_volumes(tmp_path), find_nodule_scans(tmp_path)):
        assert sorted({record.patient for record in found}) == ["A", "B"]
        assert sorted({record.image.name for record in found}) == ["case0", "case1"]
    assert {record.patient for record in find_images(tmp_path / "images").samples} == {"A", "B"}
    assert [line.partition(": left out: ")[2] for line in caplog.messages] == [
        "6 other files (images/case0/DICOMDIR, images/case0/LICENSE, images/case0/notes.xml, ...), "
        "4 hidden files (images/case0/.DS_Store, images/case0/Thumbs.db, images/case1/.DS_Store, ...)"
    ] * 3 + [
        "6 other files (case0/DICOMDIR, case0/LICENSE, case0/notes.xml, ...), "
        "4 hidden files (case0/.DS_Store, case0/Thumbs.db, case1/.DS_Store, ...)"
    ]


def test_patients_without_an_id_have_the_name_of_their_folder(tmp_path: Path) -> None:
    for number in range(3):
        series(tmp_path / f"P00{number}" / "ST1" / "SE1", "", seed=100 * number)
    samples = find_images(tmp_path).samples
    assert sorted({sample.patient for sample in samples}) == ["P000", "P001", "P002"]
    assert len({sample.name for sample in samples}) == len(samples) == 18


def test_a_label_beside_or_within_a_series_finds_it(tmp_path: Path) -> None:
    series(tmp_path / "case1" / "DICOM", "A")
    volume(tmp_path / "case1" / "label.nii.gz", label=True)
    series(tmp_path / "case2", "B")
    volume(tmp_path / "case2" / "label.nii.gz", label=True)
    found = find_volumes(tmp_path)
    assert [record.image.relative_to(tmp_path).as_posix() for record in found] == ["case1/DICOM", "case2"]


def test_labels_of_slicer_beside_their_volume(tmp_path: Path) -> None:
    touch(tmp_path, "a.nrrd", "a.seg.nrrd", "b/CT.nrrd", "b/Segmentation.seg.nrrd")
    pairs = [(record.image.name, record.mask.name) for record in labels_beside(tmp_path) if record.mask]
    assert pairs == [("a.nrrd", "a.seg.nrrd"), ("CT.nrrd", "Segmentation.seg.nrrd")]


def test_pairs_of_header_and_voxels_are_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.hdr", "a.img", "b.HDR", "b.IMG.GZ", "c.mhd", "c.raw")
    assert names(tmp_path, images_in(tmp_path)) == ["a.hdr", "b.HDR", "c.mhd"]


def test_masks_for_inference_are_found_without_what_systems_leave(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "A.PNG")
    touch(tmp_path, "._A.PNG", "readme.txt")
    assert [source.condition.name for source in find_sources(input_dir=tmp_path)] == ["A.PNG"]
    assert caplog.messages == [f"{tmp_path}: left out: 1 other file (readme.txt), 1 hidden file (._A.PNG)"]


def test_other_formats_are_named_where_nothing_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "a.mgz", "b.gipl")
    for find in (find_images, find_samples, find_volumes):
        with pytest.raises(
            UserError, match=r"\.gipl, \.mgz files are not read: convert them to NIfTI or PNG"
        ):
            find(tmp_path)

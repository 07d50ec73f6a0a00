"""Folders as people have them, and the layouts of data sets in them."""

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
    LAYOUTS,
    find_samples,
    find_volumes,
    has_labels_beside,
    images_below,
    images_in,
    labels_beside,
    warn_of_left_out,
)
from common.data.nodules import find_nodule_scans
from common.data.volume_io import open_volume
from common.errors import UserError
from common.inference.datasets import find_sources
from common.trust.image_sets import image_files
from tests.common.data.made_volumes import ct_stack, write_ct

JUNK = ("DICOMDIR", "LICENSE", "notes.xml", "Thumbs.db", ".DS_Store")


def write_junk(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image at all" * 20)


def write_volume(path: Path, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(60, dtype=np.int16).reshape(4, 5, 3) * 30 - 1000
    nib.save(nib.Nifti1Image((array > 0).astype(np.uint8) if label else array, np.eye(4)), path)


def names(folder: Path, found: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def series(folder: Path, patient: str, uid: str = "", name: str = "IM{:04d}", seed: int = 0) -> None:
    def edit(data: Any, index: int) -> None:
        data.PatientID = patient

    write_ct(folder, ct_stack() + np.int16(7 * seed), name=name, series=uid, edit=edit)


def scout(data: Any, index: int) -> None:
    data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def test_series_are_found_at_any_depth_and_by_their_content(tmp_path: Path) -> None:
    series(tmp_path / "p1" / "STUDY" / "2024" / "SE2", "A")
    series(tmp_path / "p1" / "STUDY" / "2024" / "SE3", "A", name="1.2.840.{}")
    series(tmp_path / "p2", "B", name="I{}.IMA")
    write_junk(tmp_path, *JUNK, *(f"p2/{name}" for name in JUNK))
    assert names(tmp_path, images_below(tmp_path)) == ["p1/STUDY/2024/SE2", "p1/STUDY/2024/SE3", "p2"]
    assert names(tmp_path, images_in(tmp_path)) == ["p1", "p2"]


def test_a_series_in_several_folders_is_one_image(tmp_path: Path) -> None:
    uid = generate_uid()
    series(tmp_path / "p1" / "DIR0", "A", uid)
    series(tmp_path / "p1" / "DIR1", "A", uid, name="JM{}")
    series(tmp_path / "p2", "B")
    assert names(tmp_path, images_below(tmp_path)) == ["p1", "p2"]


def test_slices_of_several_series_in_one_folder_are_single_images_without_the_scout(tmp_path: Path) -> None:
    write_ct(tmp_path / "p1", ct_stack(depth=2), name="a{}")
    write_ct(tmp_path / "p1", ct_stack(depth=1), name="b{}")
    write_ct(tmp_path / "p1", ct_stack(depth=1), name="c{}", edit=scout)
    assert names(tmp_path, images_below(tmp_path)) == ["p1/a0", "p1/a1", "p1/b0"]


def test_a_scout_or_a_preview_beside_a_series_changes_nothing(tmp_path: Path) -> None:
    for number in range(2):
        series(tmp_path / f"p{number}", "A", name="b{}")
        write_ct(tmp_path / f"p{number}", ct_stack(depth=1), name="a{}", edit=scout)
        write_junk(tmp_path / f"p{number}", "preview.png")
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
    write_junk(tmp_path, "a.png", "._a.png", f"{system}/b.png", f"{system}/c/d.nii.gz")
    assert names(tmp_path, images_below(tmp_path)) == ["a.png"]
    assert names(tmp_path, images_in(tmp_path)) == ["a.png"]
    assert names(tmp_path, image_files(tmp_path)) == ["a.png"]


def test_links_are_followed(tmp_path: Path) -> None:
    for number in range(1, 5):
        write_volume(tmp_path / "disk" / f"case{number}" / "ct.nii.gz")
        write_volume(tmp_path / "disk" / f"case{number}" / "label.nii.gz", label=True)
    (tmp_path / "set").mkdir()
    for number in range(1, 5):
        (tmp_path / "set" / f"case{number}").symlink_to(tmp_path / "disk" / f"case{number}")
    found = find_volumes(tmp_path / "set")
    assert [record.patient for record in found] == ["case1", "case2", "case3", "case4"]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_links_that_lead_back_are_refused(tmp_path: Path, target: str) -> None:
    write_junk(tmp_path, "set/case1/ct.nii.gz")
    (tmp_path / "set" / "case1" / "again").symlink_to(target)
    with pytest.raises(UserError, match=r"case1/again: is a link to a folder above it .*remove the link"):
        images_below(tmp_path / "set")


def test_two_links_to_each_other_end(tmp_path: Path) -> None:
    write_junk(tmp_path, "set/a/1.png", "b/2.png")
    (tmp_path / "set" / "a" / "there").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "set" / "a")
    with pytest.raises(UserError, match=r"there/back: is a link to a folder above it"):
        images_below(tmp_path / "set")


def test_links_to_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "case1.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(UserError, match=r"case1\.nii\.gz: is a link to a file that is not there"):
        images_below(tmp_path)


def test_what_is_left_out_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_junk(tmp_path, "a.png", "b.png", "c.NRRD", "splits.json", *JUNK, "@eaDir/x.png")
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
        write_volume(tmp_path / f"case{number}.nii.gz")
    for number in range(2):
        write_volume(tmp_path / f"case{number}_seg.nii.gz", label=True)
    assert len(find_volumes(tmp_path)) == 2
    assert caplog.messages == [f"{tmp_path}: left out: 2 images (case2.nii.gz, case3.nii.gz)"]
    caplog.clear()
    assert len(find_samples(tmp_path)) == 6
    assert caplog.messages == [f"{tmp_path}: left out: 2 images (case2.nii.gz, case3.nii.gz)"]


def nested_pairs(folder: Path) -> None:
    for number, patient in enumerate(("A", "B")):
        series(folder / "images" / f"case{number}" / "STUDY" / "SERIES", patient, seed=number)
        write_junk(folder / "images" / f"case{number}", *JUNK)
        write_volume(folder / "masks" / f"case{number}.nii.gz", label=True)


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
    write_volume(tmp_path / "case1" / "label.nii.gz", label=True)
    series(tmp_path / "case2", "B")
    write_volume(tmp_path / "case2" / "label.nii.gz", label=True)
    found = find_volumes(tmp_path)
    assert [record.image.relative_to(tmp_path).as_posix() for record in found] == ["case1/DICOM", "case2"]


def test_labels_of_slicer_beside_their_volume(tmp_path: Path) -> None:
    write_junk(tmp_path, "a.nrrd", "a.seg.nrrd", "b/CT.nrrd", "b/Segmentation.seg.nrrd")
    pairs = [(record.image.name, record.mask.name) for record in labels_beside(tmp_path) if record.mask]
    assert pairs == [("a.nrrd", "a.seg.nrrd"), ("CT.nrrd", "Segmentation.seg.nrrd")]


def test_pairs_of_header_and_voxels_are_one_image(tmp_path: Path) -> None:
    write_junk(tmp_path, "a.hdr", "a.img", "b.HDR", "b.IMG.GZ", "c.mhd", "c.raw")
    assert names(tmp_path, images_in(tmp_path)) == ["a.hdr", "b.HDR", "c.mhd"]


def test_masks_for_inference_are_found_without_what_systems_leave(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "A.PNG")
    write_junk(tmp_path, "._A.PNG", "readme.txt")
    assert [source.condition.name for source in find_sources(input_dir=tmp_path)] == ["A.PNG"]
    assert caplog.messages == [f"{tmp_path}: left out: 1 other file (readme.txt), 1 hidden file (._A.PNG)"]


def test_other_formats_are_named_where_nothing_is_found(tmp_path: Path) -> None:
    write_junk(tmp_path, "a.mgz", "b.gipl")
    for find in (find_images, find_samples, find_volumes):
        with pytest.raises(
            UserError, match=r"\.gipl, \.mgz files are not read: convert them to NIfTI or PNG"
        ):
            find(tmp_path)


def picture(path: Path, seed: int = 0, shape: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)


def volume(path: Path, depth: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(20 * depth, dtype=np.int16).reshape(4, 5, depth), np.eye(4)), path)


def test_slices_share_a_patient_by_their_names(tmp_path: Path) -> None:
    for name in ("p1_002", "p1_001", "p2-7", "other"):
        picture(tmp_path / "images" / f"{name}.jpg")
        picture(tmp_path / "masks" / f"{name}.png")
    samples = find_samples(tmp_path)
    assert [(s.name, s.patient) for s in samples] == [
        ("other", "other"), ("p1_001", "p1"), ("p1_002", "p1"), ("p2-7", "p2"),
    ]  # fmt: skip
    pattern = find_samples(tmp_path, patient_pattern=r"^(p)\d")
    assert [s.patient for s in pattern] == ["other", "p", "p", "p"]


def test_volumes_become_slices(tmp_path: Path) -> None:
    volume(tmp_path / "images" / "case_3.nii.gz")
    volume(tmp_path / "masks" / "case_3.nii.gz")
    samples = find_samples(tmp_path)
    assert [(s.name, s.patient, s.index) for s in samples] == [
        (f"case_3-z00{z}", "case_3", z) for z in range(3)
    ]


def test_layouts_list_files_and_frames_belong_together(tmp_path: Path) -> None:
    for frame in ("01", "12"):
        volume(tmp_path / "images" / f"patient001_frame{frame}.nii.gz")
        volume(tmp_path / "masks" / f"patient001_frame{frame}.nii.gz")
    records = LAYOUTS["image_mask_folders"](tmp_path, None)
    assert [(r.patient, r.index) for r in records] == [("patient001", None)] * 2


def test_phantoms_are_marked(tmp_path: Path) -> None:
    volume(tmp_path / "images" / "phantom_000.nii.gz")
    volume(tmp_path / "masks" / "phantom_000.nii.gz")
    (tmp_path / "phantom.json").write_text("{}")
    assert {(s.group, s.mask_values) for s in find_samples(tmp_path)} == {("phantom", (1, 2))}


@pytest.fixture
def covid(tmp_path: Path) -> Path:
    pseudo = "Data-1_radiopaedia_org_covid-19-pneumonia-29_86490_1-dcm_4", "Data-1_coronacases_org_001_7"
    for name in pseudo:
        picture(tmp_path / "pseudo" / "images" / f"{name}.jpg")
        picture(tmp_path / "pseudo" / "masks" / f"{name}.png")
    for name, seed in (("0", 1), ("1", 2), ("2", 1)):
        picture(tmp_path / "doctor" / "images" / f"{name}.png", seed)
        picture(tmp_path / "doctor" / "masks" / f"{name}.png")
    return tmp_path


def test_covid_lesions(covid: Path) -> None:
    samples = find_samples(covid)
    doctor = [s for s in samples if s.group == "doctor"]
    assert [s.patient for s in doctor] == ["doctor_000", "doctor_001", "doctor_000"]
    corona, radiopaedia = (s for s in samples if s.group == "pseudo")
    assert (corona.patient, corona.orientation, corona.mask_threshold) == (
        "Data-1_coronacases_org_001", "rot90", 128,
    )  # fmt: skip
    assert (radiopaedia.orientation, radiopaedia.person) == ("transpose", "covid-19-pneumonia-29")


@pytest.mark.parametrize("part", ["doctor", "pseudo"])
def test_covid_lesions_by_part(covid: Path, part: str) -> None:
    assert {s.group for s in find_samples(covid / part)} == {part}


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_samples(tmp_path / "none")
    with pytest.raises(UserError, match="no known layout"):
        find_samples(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="no images"):
        find_samples(tmp_path)
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: image without mask"):
        find_samples(tmp_path)
    picture(tmp_path / "masks" / "a.png")
    picture(tmp_path / "masks" / "b.png")
    with pytest.raises(UserError, match=r"b\.png: mask without image"):
        find_samples(tmp_path)
    picture(tmp_path / "images" / "b.png")
    picture(tmp_path / "images" / "b.jpg")
    with pytest.raises(UserError, match="same name"):
        find_samples(tmp_path)
    with pytest.raises(UserError, match="layout 'x' is unknown"):
        find_samples(tmp_path, layout="x")


def test_volumes_with_label_folders(tmp_path: Path) -> None:
    for name in ("images", "masks", "labels/heart", "labels/lung"):
        volume(tmp_path / name / "phantom_000.nii.gz")
    (tmp_path / "phantom.json").write_text("{}")
    (record,) = find_volumes(tmp_path)
    assert record.mask == tmp_path / "labels" / "heart" / "phantom_000.nii.gz"
    assert (record.index, record.group, record.patient) == (None, "phantom", "phantom_000")


def test_pictures_with_labels(tmp_path: Path) -> None:
    for name in ("1001_63", "1001_179", "1002_5"):
        picture(tmp_path / "images" / f"{name}.png")
        picture(tmp_path / "labels" / f"{name}.png")
    assert [r.patient for r in find_volumes(tmp_path)] == ["1001", "1001", "1002"]
    assert {r.patient for r in find_volumes(tmp_path, patient_pattern=r"(\d\d)")} == {"10"}


def test_labels_beside_are_known_to_both(tmp_path: Path) -> None:
    volume(tmp_path / "deep" / "p1_frame01.nii.gz")
    volume(tmp_path / "deep" / "p1_frame01_gt.nii.gz")
    assert [r.patient for r in find_volumes(tmp_path)] == ["p1"]
    assert [(s.patient, s.index) for s in find_samples(tmp_path)] == [("p1", index) for index in range(3)]


def test_bad_folders_of_volumes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_volumes(tmp_path / "none")
    with pytest.raises(UserError, match="no images with labels found"):
        find_volumes(tmp_path)
    with pytest.raises(UserError, match="layout 'x' is unknown"):
        find_volumes(tmp_path, layout="x")
    volume(tmp_path / "images" / "a.nii.gz")
    (tmp_path / "labels").mkdir()
    with pytest.raises(UserError, match=r"a\.nii\.gz: image without mask"):
        find_volumes(tmp_path)


@pytest.mark.realdata
def test_shared_hearts(shared_data: Path) -> None:
    acdc = find_volumes(shared_data / "acdc")
    assert len(acdc) == 32 and len({r.patient for r in acdc}) == 16
    chd = find_volumes(shared_data / "cardiac_chd")
    assert len(chd) == 24 and sorted({r.patient for r in chd}) == ["1001", "1002", "1003", "1004", "1005"]
    (cta,) = find_volumes(shared_data / "cardiac_cta")
    assert cta.image.name == "ct.nii.gz" and cta.patient == "cardiac_cta"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, pattern: str | None = None) -> list[tuple[str, str, str]]:
    return [
        (record.image.name, record.mask.name if record.mask else "", record.patient)
        for record in labels_beside(folder, pattern)
    ]


def test_mmwhs(tmp_path: Path) -> None:
    touch(tmp_path, "ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz", "ct_test_2001_image.nii.gz")
    assert found(tmp_path) == [("ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz", "ct_train_1001")]


def test_acdc_as_published(tmp_path: Path) -> None:
    inside = tmp_path / "training" / "patient001"
    for frame in ("01", "12"):
        touch(inside, f"patient001_frame{frame}.nii.gz", f"patient001_frame{frame}_gt.nii.gz")
    touch(inside, "patient001_4d.nii.gz", "Info.cfg", "._patient001_frame01_gt.nii.gz")
    assert found(tmp_path) == [
        (f"patient001_frame{frame}.nii.gz", f"patient001_frame{frame}_gt.nii.gz", "patient001")
        for frame in ("01", "12")
    ]
    assert found(tmp_path, r"(\w+)")[0][2] == "patient001_frame01"


def test_a_folder_for_each_case(tmp_path: Path) -> None:
    for case in ("s0001", "s0002"):
        touch(tmp_path / case, "ct.nii.gz", "label.nii.gz")
    assert [record.patient for record in labels_beside(tmp_path)] == ["s0001", "s0002"]
    assert len({record.name for record in labels_beside(tmp_path)}) == 2


def test_what_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "flagseg.nii.gz")
    assert not has_labels_beside(tmp_path)
    with pytest.raises(UserError, match="no image has a label beside it"):
        labels_beside(tmp_path)
    touch(tmp_path, "b_label.nii.gz")
    assert has_labels_beside(tmp_path)
    with pytest.raises(UserError, match=r"b_label\.nii\.gz: label without image"):
        labels_beside(tmp_path)
    touch(tmp_path, "b.nii", "b.nii.gz")
    with pytest.raises(UserError, match="same name"):
        labels_beside(tmp_path)

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.layouts import LAYOUTS, find_samples, find_volumes, has_labels_beside, labels_beside
from common.errors import UserError


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
    (lung,) = find_volumes(tmp_path, labels="lung")
    assert lung.mask is not None and lung.mask.parent.name == "lung"


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

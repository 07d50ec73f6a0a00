from __future__ import annotations

from pathlib import Path

import pytest

from common.data.beside import has_labels_beside, labels_beside
from common.errors import UserError


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

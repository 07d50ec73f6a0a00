from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.errors import UserError
from common.inference.sources import Source, find_sources


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)
    return path


def test_one_file_with_or_without_its_image(tmp_path: Path) -> None:
    label, image = volume(tmp_path / "label.nii.gz"), volume(tmp_path / "ct.nii.gz")
    assert find_sources(label_file=str(label)) == [Source(label)]
    assert find_sources(label_file=label, ct_file=image) == [Source(label, image)]


def test_a_folder_is_all_of_its_files_by_name(tmp_path: Path) -> None:
    second, first = volume(tmp_path / "b.nii.gz"), volume(tmp_path / "a.nii")
    (tmp_path / ".hidden").touch()
    (tmp_path / "notes.txt").touch()
    assert find_sources(input_dir=tmp_path) == [Source(first), Source(second)]


def test_a_data_set_is_its_labels_with_their_images(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        volume(tmp_path / f"{name}.nii.gz")
        volume(tmp_path / f"{name}_label.nii.gz")
    found = find_sources(dataset_dir=tmp_path)
    assert found == [Source(tmp_path / f"{n}_label.nii.gz", tmp_path / f"{n}.nii.gz") for n in ("p1", "p2")]


def test_a_data_set_of_two_images_is_the_ones_that_the_model_takes(tmp_path: Path) -> None:
    first, second = volume(tmp_path / "native" / "p.nii.gz"), volume(tmp_path / "images" / "p.nii.gz")
    info = {"condition": "image", "condition_dir": "native", "image_dir": "images"}
    assert find_sources(dataset_dir=tmp_path, info=info) == [Source(first, second)]
    back = {"condition": "image", "condition_dir": "images", "image_dir": "native"}
    assert find_sources(dataset_dir=tmp_path, info=back) == [Source(second, first)]


def test_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    for case in ("case1", "case2"):
        volume(tmp_path / case / "ct.nii.gz")
        volume(tmp_path / case / "label.nii.gz")
    with pytest.raises(UserError, match=r"case2/label\.nii\.gz: .*case1/label\.nii\.gz has the same name"):
        find_sources(dataset_dir=tmp_path)


def test_what_is_asked_must_be_clear(tmp_path: Path) -> None:
    label = volume(tmp_path / "label.nii.gz")
    with pytest.raises(UserError, match="--label_file, --input_dir and --dataset_dir; none was given"):
        find_sources()
    with pytest.raises(UserError, match="--label_file and --input_dir was given"):
        find_sources(label_file=label, input_dir=tmp_path)
    with pytest.raises(UserError, match="give it with --label_file"):
        find_sources(input_dir=tmp_path, ct_file=label)
    with pytest.raises(UserError, match=r"nowhere\.nii: no such file"):
        find_sources(label_file=tmp_path / "nowhere.nii")
    with pytest.raises(UserError, match=r"ct\.nii: no such file"):
        find_sources(label_file=label, ct_file=tmp_path / "ct.nii")
    with pytest.raises(UserError, match="no such folder"):
        find_sources(input_dir=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no label files"):
        find_sources(input_dir=tmp_path / "empty")

"""What this bundle refuses: one line on standard error that names the trouble, exit 1, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.patchgan_cardiac.case import AFFINE, CASE
from tests.bundles.runs import forked


def refused(data: Path, tmp_path: Path, **more: object) -> str:
    """The one line that ends a training, after a check that it left nothing."""
    error = forked(CASE.training(data, tmp_path / "run", **more), tmp_path / "log").error
    assert not (tmp_path / "run").exists()
    return error


def cut_short(folder: Path) -> None:
    path = folder / "images" / "patient_003.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def unknown_value(folder: Path) -> None:
    path = folder / "labels" / "patient_003.nii.gz"
    voxels = np.array(nib.load(path).dataobj)
    voxels[voxels == 7] = 77
    path.unlink()
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)


def no_structure(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        nib.save(nib.Nifti1Image(np.zeros((32, 32, 4), np.uint8), AFFINE), path)


DAMAGES: list[tuple[Callable[[Path], None], list[str]]] = [
    (shutil.rmtree, ["data", "no such folder"]),
    (cut_short, ["images/patient_003.nii.gz"]),
    (unknown_value, ["labels/patient_003.nii.gz", "77", "--label_map"]),
    (no_structure, ["min_pixels"]),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_data_set_is_one_line(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], said: list[str]
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    damage(copy)
    error = refused(copy, tmp_path)
    assert all(part in error for part in said), error


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("labels", "LV,Mio", "'Mio' is unknown; choose from all, LV, RV, LA, RA, Myo, Ao, PA, whole_heart"),
        ("label_map", "{1: LV}", "not in the label map"),
        ("coarse_labels", 1.5, "from 0 to 1"),
        ("encoding", "one-hot", "'one-hot' is unknown; choose one of index, onehot, image"),
        ("network_def#up", "bilinear", "'bilinear' is unknown"),
        ("discriminator_def#downsamplings", 5, "downsamplings 5"),
        ("every", 0, "every"),
        ("spacing", -1, "spacing"),
    ],
)
def test_a_bad_setting_is_one_line(data: Path, tmp_path: Path, key: str, value: object, said: str) -> None:
    assert said in refused(data, tmp_path, **{key: value})

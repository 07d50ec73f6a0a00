"""What is refused: one line on standard error that names the trouble, exit 1, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.pix2pix_covid.case import AFFINE, CASE, arguments
from tests.bundles.runs import Run, fingerprints, forked


def no_masks(folder: Path) -> None:
    shutil.rmtree(folder / "masks")


def no_pairs(folder: Path) -> None:
    for path in (*(folder / "images").iterdir(), *(folder / "masks").iterdir()):
        path.unlink()


def one_mask_less(folder: Path) -> None:
    (folder / "masks" / "patient_003.nii.gz").unlink()


def truncated(folder: Path) -> None:
    path = folder / "images" / "patient_003.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])


def not_a_number(folder: Path) -> None:
    path = folder / "images" / "patient_003.nii.gz"
    voxels = nib.load(path).get_fdata()
    voxels[3, 4, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), AFFINE), path)


def other_size(folder: Path) -> None:
    voxels = np.ones((20, 32, 4), np.uint8)
    nib.save(nib.Nifti1Image(voxels, AFFINE), folder / "masks" / "patient_003.nii.gz")


def empty_masks(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        nib.save(nib.Nifti1Image(np.zeros((32, 32, 4), np.uint8), AFFINE), path)


def few_patients(folder: Path) -> None:
    for part in ("images", "masks"):
        for number in range(1, 8):
            (folder / part / f"patient_{number:03d}.nii.gz").unlink()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (shutil.rmtree, "no such folder"),
    (no_masks, "masks/"),
    (no_pairs, "no image"),
    (one_mask_less, "patient_003"),
    (truncated, "images/patient_003.nii.gz"),
    (not_a_number, "images/patient_003.nii.gz"),
    (other_size, "masks/patient_003.nii.gz"),
    (empty_masks, "empty"),
    (few_patients, "patient"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_data_set_is_one_line(
    pairs: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(pairs, data)
    damage(data)
    error = forked(CASE.training(data, tmp_path / "run"), tmp_path / "log").error
    assert str(data) in error and said in error
    assert not (tmp_path / "run").exists()


def test_bad_masks_stop_inference_before_it_writes(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path
) -> None:
    shutil.copytree(pairs / "masks", tmp_path / "masks")
    (tmp_path / "masks" / "patient_007.nii.gz").write_bytes(b"no mask")
    model = trained[0] / "models" / "model.pt"
    settings = {"input_dir": tmp_path / "masks", "ckpt_path": model, "output_dir": tmp_path / "out"}
    error = forked(arguments("inference", "inference", **settings), tmp_path / "log").error
    assert "masks/patient_007.nii.gz" in error
    assert not (tmp_path / "out").exists()


def test_inference_keeps_off_the_masks_own_folder(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path
) -> None:
    before = fingerprints(pairs / "masks")
    model = trained[0] / "models" / "model.pt"
    settings = {"input_dir": pairs / "masks", "ckpt_path": model, "output_dir": pairs / "masks"}
    assert "--output_dir" in forked(arguments("inference", "inference", **settings), tmp_path / "log").error
    assert fingerprints(pairs / "masks") == before

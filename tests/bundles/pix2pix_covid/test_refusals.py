"""What is refused: one line on standard error that names the trouble, exit 1, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.pix2pix_covid.case import AFFINE, CASE, CONFIGS, arguments
from tests.bundles.runs import Run, command, fingerprints, finished, forked


def train(pairs: Path, folder: Path, **more: object) -> Run:
    return forked(CASE.training(pairs, folder / "run", **more), folder / "log")


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
    error = train(data, tmp_path).error
    assert str(data) in error and said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epocs", 3, "config key 'epocs' is read by nothing; did you mean 'max_epochs'?"),
        ("train#max_epochs", 3, "config key 'train#max_epochs' is read by nothing"),
        ("network_def#depth", 3, "takes no 'depth'"),
        ("amp", "fp8", "amp: 'fp8'"),
        ("window", "lungs", "lungs"),
        ("adversarial", "bbce", "bbce"),
        ("extractor", "inceptoin", "inceptoin"),
        ("batch_size", 64, "training samples are fewer than one batch of 64"),
        ("image_size", 40, "image_size 40 does not fit the networks"),
        ("augment", "{'flip':0.5,'rotate':3}", "rotate"),
        ("adversarial", "wgan", "wgan"),
    ],
)
def test_a_bad_setting_is_one_line(pairs: Path, tmp_path: Path, key: str, value: object, said: str) -> None:
    assert said in train(pairs, tmp_path, **{key: value}).error
    assert not (tmp_path / "run").exists()


def test_the_plain_command_refuses_in_one_line_too(tmp_path: Path) -> None:
    parts = arguments("training", "train", epocs=3, output_dir=tmp_path / "run")
    assert finished(command(parts)).error.endswith("did you mean 'max_epochs'?")
    assert not (tmp_path / "run").exists()


def test_without_a_model_evaluating_says_train_first(pairs: Path, tmp_path: Path) -> None:
    parts = arguments("evaluating", "evaluate", dataset_dir=pairs, output_dir=tmp_path / "run")
    error = forked(parts, tmp_path / "log").error
    assert str(tmp_path / "run" / "models" / "model.pt") in error and "train first" in error
    assert not (tmp_path / "run").exists()


def test_without_a_model_inference_says_train_first(pairs: Path, tmp_path: Path) -> None:
    settings = {
        "input_dir": pairs / "masks",
        "ckpt_path": tmp_path / "model.pt",
        "output_dir": tmp_path / "out",
    }
    error = forked(arguments("inference", "inference", **settings), tmp_path / "log").error
    assert str(tmp_path / "model.pt") in error and "train first" in error
    assert not (tmp_path / "out").exists()


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


def test_a_broken_model_is_one_line(trained: tuple[Path, Run], pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    model = tmp_path / "run" / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:500])
    parts = arguments("evaluating", "evaluate", dataset_dir=pairs, output_dir=tmp_path / "run")
    assert str(model) in forked(parts, tmp_path / "log").error


def test_an_existing_run_is_refused_and_goes_on_when_asked(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train(pairs, tmp_path, max_epochs=3).error
    assert "a run is already there" in error and "--resume true" in error
    assert fingerprints(tmp_path / "run") == before
    resumed = train(pairs, tmp_path, max_epochs=3, resume=True)
    assert resumed.code == 0, resumed.err
    assert "resumed after iteration 20" in resumed.out
    rows = (tmp_path / "run" / "logs" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 31)]


def test_resuming_with_other_settings_is_one_line(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    assert "batch_size was 2, is 4" in train(pairs, tmp_path, resume=True, batch_size=4).error
    assert fingerprints(tmp_path / "run") == before


def test_a_config_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    parts = ["run", "training", "--config_file", str(CONFIGS / "trian.yaml")]
    run = forked(parts, tmp_path / "log")
    assert run.code == 1 and "trian.yaml" in run.err  # MONAI's own words: no config has begun yet

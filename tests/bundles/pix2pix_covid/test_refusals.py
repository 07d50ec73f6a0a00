"""What is refused, and runs that go wrong in the middle: one line, exit 1, and what was good stays."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.bundles.pix2pix_covid.case import AFFINE, CASE, arguments
from tests.bundles.runs import Run, fingerprints, forked


def one_mask_less(folder: Path) -> None:
    (folder / "masks" / "patient_003.nii.gz").unlink()


def truncated(folder: Path) -> None:
    path = folder / "images" / "patient_003.nii.gz"
    path.write_bytes(path.read_bytes()[:1000])


def empty_masks(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        nib.save(nib.Nifti1Image(np.zeros((32, 32, 4), np.uint8), AFFINE), path)


def few_patients(folder: Path) -> None:
    for part in ("images", "masks"):
        for number in range(1, 8):
            (folder / part / f"patient_{number:03d}.nii.gz").unlink()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (shutil.rmtree, "no such folder"),
    (one_mask_less, "patient_003"),
    (truncated, "images/patient_003.nii.gz"),
    (empty_masks, "empty"),
    (few_patients, "patient"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_data_set_is_one_line(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    damage(copy)
    error = forked(CASE.training(copy, tmp_path / "run"), tmp_path / "log").error
    assert str(copy) in error and said in error
    assert not (tmp_path / "run").exists()


def test_bad_masks_stop_inference_before_it_writes(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data / "masks", tmp_path / "masks")
    (tmp_path / "masks" / "patient_007.nii.gz").write_bytes(b"no mask")
    model = trained[0] / "models" / "model.pt"
    settings = {"input_dir": tmp_path / "masks", "ckpt_path": model, "output_dir": tmp_path / "out"}
    error = forked(arguments("inference", "inference", **settings), tmp_path / "log").error
    assert "masks/patient_007.nii.gz" in error
    assert not (tmp_path / "out").exists()


def test_inference_keeps_off_the_masks_own_folder(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    before = fingerprints(data / "masks")
    model = trained[0] / "models" / "model.pt"
    settings = {"input_dir": data / "masks", "ckpt_path": model, "output_dir": data / "masks"}
    assert "--output_dir" in forked(arguments("inference", "inference", **settings), tmp_path / "log").error
    assert fingerprints(data / "masks") == before


train = CASE.training


def test_divergence_is_one_line_and_keeps_the_checkpoint(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    before = {name: (folder / "models" / name).read_bytes() for name in ("model.pt", "resume.pt")}
    again = train(data, folder, max_epochs=3, resume=True, learning_rate=1e12)
    error = forked(again, tmp_path / "bad").error
    assert "resume.pt" in error and "lower the learning rate" in error
    assert {name: (folder / "models" / name).read_bytes() for name in before} == before


def test_divergence_from_the_start_says_that_nothing_was_kept(data: Path, tmp_path: Path) -> None:
    """With a traceback, where it is asked for."""
    parts = train(data, tmp_path / "run", learning_rate=1e12)
    run = forked(parts, tmp_path / "log", SYNTHESIS_DEBUG="1")
    assert run.code == 1 and "Traceback" in run.err and "TrainingDiverged" in run.err
    assert "no checkpoint had been written yet" in run.err
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    before = (folder / "models" / "resume.pt").read_bytes()
    limit = len(before) // 2
    run = forked(train(data, folder, max_epochs=3, resume=True), tmp_path / "full", file_limit=limit)
    assert str(folder / "models") in run.error
    assert (folder / "models" / "resume.pt").read_bytes() == before
    assert torch.load(folder / "models" / "resume.pt", weights_only=True)["iteration"] == 20
    assert [path for path in (folder / "models").iterdir() if path.name.startswith(".")] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes; skips where the tests may not mount."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(line, capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("room", [0.4, pytest.param(1.02, marks=pytest.mark.slow)])
def test_a_small_disk_is_one_line(
    trained: tuple[Path, Run], data: Path, tmp_path: Path, small_disk: Callable[[int], Path], room: float
) -> None:
    whole = sum(path.stat().st_size for path in trained[0].rglob("*") if path.is_file())
    folder = small_disk(int(whole * room)) / "run"
    error = forked(train(data, folder, max_epochs=6, resume_interval=2), tmp_path / "full").error
    assert str(folder) in error and "disk is full" in error
    assert [path for path in folder.rglob(".*")] == []


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0, 1, 4])
def test_a_disk_that_is_full_when_the_run_goes_on(
    trained: tuple[Path, Run], data: Path, tmp_path: Path, small_disk: Callable[[int], Path], pages: int
) -> None:
    # The run, and a model and a resume file written beside those that they replace.
    disk = small_disk(2 * sum(path.stat().st_size for path in trained[0].rglob("*") if path.is_file()))
    folder = disk / "run"
    shutil.copytree(trained[0], folder)
    before = (folder / "models" / "resume.pt").read_bytes()
    room = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(room - pages * 4096))
    error = forked(train(data, folder, max_epochs=6, resume=True), tmp_path / "full").error
    assert str(folder) in error and "disk is full" in error
    assert (folder / "models" / "resume.pt").read_bytes() == before
    (disk / "filler").unlink()
    resumed = forked(train(data, folder, max_epochs=3, resume=True), tmp_path / "resumed")
    assert resumed.code == 0, resumed.err
    rows = (folder / "logs" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 31)]

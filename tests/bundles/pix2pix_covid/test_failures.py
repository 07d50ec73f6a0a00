"""Runs that go wrong in the middle: one line, exit 1, and what was good stays."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.bundles.pix2pix_covid.case import CASE
from tests.bundles.runs import Run, forked

train = CASE.training


def test_divergence_is_one_line_and_keeps_the_checkpoint(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert forked(train(pairs, folder), tmp_path / "good").code == 0
    before = {name: (folder / "models" / name).read_bytes() for name in ("model.pt", "resume.pt")}
    again = train(pairs, folder, max_epochs=3, resume=True, learning_rate=1e12)
    error = forked(again, tmp_path / "bad").error
    assert "resume.pt" in error and "lower the learning rate" in error
    assert {name: (folder / "models" / name).read_bytes() for name in before} == before


def test_divergence_from_the_start_says_that_nothing_was_kept(pairs: Path, tmp_path: Path) -> None:
    error = forked(train(pairs, tmp_path / "run", learning_rate=1e12), tmp_path / "log").error
    assert "no checkpoint had been written yet" in error
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_traceback_is_shown_where_it_is_asked_for(pairs: Path, tmp_path: Path) -> None:
    parts = train(pairs, tmp_path / "run", learning_rate=1e12)
    run = forked(parts, tmp_path / "log", SYNTHESIS_DEBUG="1")
    assert run.code == 1 and "Traceback" in run.err and "TrainingDiverged" in run.err


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert forked(train(pairs, folder), tmp_path / "good").code == 0
    before = (folder / "models" / "resume.pt").read_bytes()
    limit = len(before) // 2
    run = forked(train(pairs, folder, max_epochs=3, resume=True), tmp_path / "full", file_limit=limit)
    assert str(folder / "models") in run.error
    assert (folder / "models" / "resume.pt").read_bytes() == before
    assert torch.load(folder / "models" / "resume.pt", weights_only=True)["iteration"] == 10
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
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path, small_disk: Callable[[int], Path], room: float
) -> None:
    whole = sum(path.stat().st_size for path in trained[0].rglob("*") if path.is_file())
    folder = small_disk(int(whole * room)) / "run"
    error = forked(train(pairs, folder, max_epochs=6, resume_interval=2), tmp_path / "full").error
    assert str(folder) in error and "disk is full" in error
    assert [path for path in folder.rglob(".*")] == []


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0, 1, 4])
def test_a_disk_that_is_full_when_the_run_goes_on(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path, small_disk: Callable[[int], Path], pages: int
) -> None:
    # The run, and a model and a resume file written beside those that they replace.
    disk = small_disk(2 * sum(path.stat().st_size for path in trained[0].rglob("*") if path.is_file()))
    folder = disk / "run"
    shutil.copytree(trained[0], folder)
    before = (folder / "models" / "resume.pt").read_bytes()
    room = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(room - pages * 4096))
    error = forked(train(pairs, folder, max_epochs=6, resume=True), tmp_path / "full").error
    assert str(folder) in error and "disk is full" in error
    assert (folder / "models" / "resume.pt").read_bytes() == before
    (disk / "filler").unlink()
    resumed = forked(train(pairs, folder, max_epochs=3, resume=True), tmp_path / "resumed")
    assert resumed.code == 0, resumed.err
    rows = (folder / "logs" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 31)]

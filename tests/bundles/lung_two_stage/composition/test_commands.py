"""The commands as a user starts them: config and script, several processes, killed at any time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundles.lung_two_stage.composition.compose import compose
from bundles.lung_two_stage.composition.shards import Composites
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.composition.made import settings
from tests.bundles.lung_two_stage.composition.test_compose import files
from tests.bundles.runs import ROOT, forked


def script(folder: Path) -> subprocess.Popen[bytes]:
    """Starts the script with two workers on the banks of ``made.settings``; its output: ``script.log``."""
    line = [sys.executable, str(ROOT / "scripts" / "synthesize.py"), "--workers", "2"]
    line += ["--nodules", str(folder / "nodules"), "--healthy_slices", str(folder / "healthy_slices")]
    line += ["--output", str(folder / "by_script"), "--groups", "400", "--count", "480", "--per_shard", "9"]
    with (folder / "script.log").open("ab") as log:
        return subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 480 in 54 shards; the banks beside it."""
    folder = tmp_path_factory.mktemp("commands")
    compose(settings(folder, groups=400, count=480, per_shard=9))
    return folder


@pytest.mark.slow
def test_the_config_makes_the_same_set(straight: Path, tmp_path: Path) -> None:
    given = {
        **{name: straight / name.removesuffix("_dir") for name in ("nodules_dir", "healthy_slices_dir")},
        **{"presence_file": "null", "categories_file": "null", "output_dir": tmp_path / "out"},
        **{"groups": 400, "count": 480, "per_shard": 9},
    }
    run = forked(CASE.arguments("composition", "compose", **given), tmp_path / "log")
    assert run.code == 0, run.err
    assert files(tmp_path / "out") == files(straight / "out")
    wrong = forked(CASE.arguments("composition", "compose", **given, seed=9), tmp_path / "log")
    assert "holds composites with other seed (0, not 9)" in wrong.error


@pytest.mark.slow
def test_killed_twice_at_random_times_with_its_workers_and_resumed(straight: Path, tmp_path: Path) -> None:
    """Of one process: see test_compose."""
    for name in ("nodules", "healthy_slices"):
        (tmp_path / name).symlink_to(straight / name)
    out, draw = tmp_path / "by_script", random.Random()
    for _ in range(2):
        there = len(list(out.glob("[0-9]*.tar"))) if out.exists() else 0
        process = script(tmp_path)
        while process.poll() is None and len(list(out.glob("[0-9]*.tar"))) <= there:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = script(tmp_path)
    assert last.wait(300) == 0, (tmp_path / "script.log").read_text()
    assert files(out) == files(straight / "out")
    assert len(list(Composites(out))) == 480

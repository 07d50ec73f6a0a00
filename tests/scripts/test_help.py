"""Every script: an example in its help, one line for errors, tracebacks on demand; from another folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import repository_root

BAD_INPUT = {"trust_report": 2}  # 3 is its answer that the release gate is closed; 1 elsewhere
SCRIPTS = sorted((repository_root() / "scripts").glob("*.py"))


def run(script: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(script), *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_has_an_example(tmp_path: Path, script: Path) -> None:
    done = run(script, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert printed.startswith("usage: ") and "--debug" in printed
    assert "Example" in printed and f"python scripts/{script.name}" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_errors_are_one_line_and_a_traceback_only_on_demand(tmp_path: Path, script: Path) -> None:
    plain = run(script, tmp_path, "--nonesuch")
    assert plain.returncode == BAD_INPUT.get(script.stem, 1)
    assert plain.stderr.startswith("error: ") and len(plain.stderr.splitlines()) == 1, plain.stderr
    traced = run(script, tmp_path, "--nonesuch", "--debug")
    assert traced.returncode == plain.returncode and "Traceback" in traced.stderr

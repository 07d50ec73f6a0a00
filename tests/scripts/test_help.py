"""The scripts from another folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import repository_root


@pytest.mark.slow
@pytest.mark.parametrize("script", ["prepare_data.py", "bench.py", "synthesize.py"])
def test_scripts_run_from_another_folder(tmp_path: Path, script: str) -> None:
    line = [sys.executable, str(repository_root() / "scripts" / script), "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr

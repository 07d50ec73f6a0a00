"""A bundle's command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def bundle_command(run_id: str, config_files: Sequence[Path], settings: Mapping[str, Any]) -> list[str]:
    """``python -m monai.bundle run RUN_ID`` with configs (a training config, then overlays) and overrides."""
    files = [str(path) for path in config_files]
    given = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    config = files[0] if len(files) == 1 else str(files)
    program = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id]
    return [*program, "--config_file", config, *given]


def run_logged(command: Sequence[str], log: Path, inherited: Sequence[int] = ()) -> int:
    """Runs a command, its output appended to ``log``; returns its exit code.

    Args:
        inherited: descriptors that the process keeps open (a lock's).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.run(command, stdout=output, stderr=output, pass_fds=inherited).returncode

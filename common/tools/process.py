"""Trainings and evaluations run as processes of their own: command lines, logs and results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from common.handlers.monitors import ADVICE
from common.training.checkpoint import CURRENT, PREVIOUS

LOG = "training.log"
ERROR = "error: "


def bundle_command(run_id: str, config_files: Sequence[Path], settings: Mapping[str, Any]) -> list[str]:
    """Returns the command line ``python -m monai.bundle run RUN_ID`` with configs and overrides.

    Example:
        >>> command = bundle_command("training", [Path("train.yaml")], {"max_epochs": 2})
        >>> command[command.index("run"):]
        ['run', 'training', '--config_file', 'train.yaml', '--max_epochs', '2']
    """
    files = [str(path) for path in config_files]
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    config = files[0] if len(files) == 1 else str(files)
    program = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id]
    return [*program, "--config_file", config, *options]


def run_logged(command: Sequence[str], log: Path, inherited: Sequence[int] = ()) -> int:
    """Runs a command, appends its output to ``log`` and returns its exit code.

    Args:
        inherited: file descriptors that the process keeps open, such as a lock's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.run(command, stdout=output, stderr=output, pass_fds=inherited).returncode


@dataclass(frozen=True)
class Outcome:
    """Result of a training: its score (lower is better), or the reason why there is none.

    Attributes:
        diverged: whether a loss was not finite.
    """

    score: float | None
    reason: str = ""
    diverged: bool = False


def train(folder: Path, config_files: Sequence[Path], overrides: Mapping[str, Any], lock: int) -> Outcome:
    """Trains in ``folder`` until the end, resuming an interrupted run; the score is the best checkpoint's.

    Args:
        config_files: training config and overlays, absolute paths.
        lock: file descriptor of the search's lock; a training that outlives its search keeps holding it.
    """
    log, settings = folder / LOG, {"output_dir": folder, "resume": "true", **overrides}
    code = run_logged(bundle_command("training", config_files, settings), log, [lock])
    return failure(log, code) if code else read_score(folder / "models" / "model.json")


def failure(log: Path, code: int) -> Outcome:
    """Reads from the log why a training ended with exit code ``code``: the last line with an error.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder) / LOG
        ...     _ = log.write_text("epoch 1\\nerror: D: no such folder\\n")
        ...     failure(log, 1).reason
        'D: no such folder'
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    error = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
    if not error:
        return Outcome(None, f"the training ended with exit code {code}, see {log}")
    reason = error.removeprefix(ERROR)
    return Outcome(None, reason, diverged=ADVICE in reason)


def read_score(record: Path) -> Outcome:
    """Reads the score in the JSON beside the best checkpoint; there is none if it is missing or NaN."""
    if not record.is_file():
        return Outcome(None, f"{record} was not written: the training ended before its first validation")
    try:
        value = read_json(record)["score"]
    except (UserError, KeyError, TypeError) as error:
        return Outcome(None, f"{record}: cannot read the score ({error})")
    if value is None:
        return Outcome(None, f"{record}: the score is not a finite number", diverged=True)
    return Outcome(float(value))


def remove_resume_files(folder: Path) -> None:
    """Deletes the resume checkpoints of a finished run; they take most of its disk space."""
    for name in (CURRENT, PREVIOUS):
        (folder / "models" / name).unlink(missing_ok=True)

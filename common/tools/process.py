"""Trainings and searches in processes of their own: their commands, logs and outcomes."""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)


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


LOG = "training.log"
ERROR = "error: "


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: a score (lower is better), or the reason why there is none."""

    score: float | None
    reason: str = ""
    diverged: bool = False


@dataclass(frozen=True)
class TrainingProcess:
    """Runs ``python -m monai.bundle run training`` with overrides; a begun run in the folder goes on.

    Args:
        config_files: of the training, absolute.
        inherited: descriptors that the process keeps open (the search's lock).
    """

    config_files: Sequence[Path]
    inherited: Sequence[int] = ()

    def __call__(self, folder: Path, overrides: Mapping[str, Any]) -> Outcome:
        """Trains in ``folder`` until the end and reads the best checkpoint's score."""
        log = folder / LOG
        code = run_logged(self.command(folder, overrides), log, self.inherited)
        if code:
            return failure(log, code)
        return score(folder / "models" / "model.json")

    def command(self, folder: Path, overrides: Mapping[str, Any]) -> list[str]:
        """The command line of a trial."""
        settings = {"output_dir": folder, "resume": "true", **overrides}
        return bundle_command("training", self.config_files, settings)


def failure(log: Path, code: int) -> Outcome:
    """Why a training ended with exit code ``code``: its last error line, and whether that is divergence."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    error = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
    if not error:
        return Outcome(None, f"the training ended with exit code {code}, see {log}")
    reason = error.removeprefix(ERROR)
    return Outcome(None, reason, diverged=ADVICE in reason)


def score(record: Path) -> Outcome:
    """The score beside the best checkpoint; none where it is missing or was NaN."""
    if not record.is_file():
        return Outcome(None, f"{record} was not written: the trial ended before its first validation")
    try:
        value = read_json(record)["score"]
    except (UserError, KeyError, TypeError) as error:
        return Outcome(None, f"{record}: no score can be read ({error})")
    if value is None:
        return Outcome(None, f"{record}: the score is not a finite number", diverged=True)
    return Outcome(float(value))


def tidy(folder: Path) -> None:
    """Removes the resume files of an ended trial: most of its size, and of no more use."""
    for name in (CURRENT, PREVIOUS):
        (folder / "models" / name).unlink(missing_ok=True)

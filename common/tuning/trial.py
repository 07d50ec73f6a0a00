"""One trial: a training in its own process, and the score it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from common.handlers.divergence import ADVICE
from common.training.resume import CURRENT, PREVIOUS
from common.tuning.process import bundle_command, run_logged

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

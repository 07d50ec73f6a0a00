"""Runs of a bundle as processes of their own, and the sweep: a training and an evaluation for each value."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai.bundle import ConfigParser
from tqdm import tqdm

from common.errors import UserError
from common.files import locked, read_json, write_json
from common.handlers.monitors import ADVICE
from common.metrics.evaluate import format_number, format_table
from common.paths import bundle_root
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


RECORD = "sweep.json"
METRICS = "metrics.json"
OWN = ("resume", "output_dir", "ckpt_path")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """A sweep: the bundle, the setting's key, its values, and what all runs share.

    Attributes:
        name: the bundle's.
        key: the varied config key of the training, e.g. ``labels``.
        values: one run each.
        output_dir: gets a folder ``KEY-VALUE`` for each run, and ``sweep.json``.
        config_files: training config and overlays; empty for the bundle's ``train.yaml``.
        overrides: settings of every training; the evaluation gets those that its config has too.

    Example:
        >>> sweep = Sweep("patchgan_cardiac", "labels", ["LV", "all"], Path("out"), overrides={"seed": "1"})
        >>> training, evaluating = sweep.commands("LV")
        >>> training[-4:]
        ['--seed', '1', '--labels', 'LV']
    """

    name: str
    key: str
    values: Sequence[str]
    output_dir: Path
    config_files: Sequence[Path] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise UserError(f"values {list(self.values)}: give at least one, each once")
        taken = sorted({self.key, *self.overrides} & set(OWN))
        if taken or self.key in self.overrides:
            raise UserError(f"--{(taken or [self.key])[0]}: set by the sweep for every run; leave it out")

    @property
    def configs(self) -> Path:
        """The bundle's configs."""
        return Path(bundle_root(self.name)) / "configs"

    def folder(self, value: str) -> Path:
        """Returns the folder that the run of ``value`` trains in."""
        return self.output_dir / f"{self.key}-{quote(value, safe=',+=')}"

    def commands(self, value: str) -> list[list[str]]:
        """Returns the commands of the training and of the evaluation."""
        files = [path.resolve() for path in self.config_files] or [self.configs / "train.yaml"]
        shared = {"output_dir": self.folder(value).resolve()}
        training = {**shared, "resume": "true", **self.overrides, self.key: value}
        known = ConfigParser.load_config_file(str(self.configs / "evaluate.yaml"))
        evaluating = {**shared, **{key: v for key, v in self.overrides.items() if key in known}}
        return [
            bundle_command("training", files, training),
            bundle_command("evaluating", [self.configs / "evaluate.yaml"], evaluating),
        ]


def run_sweep(sweep: Sweep) -> list[dict[str, Any]]:
    """Trains and evaluates every value, prints the table and writes ``sweep.json``.

    The same command continues a stopped sweep: finished runs are kept, an interrupted one is resumed.

    Raises:
        UserError: a run failed (with its error and log), or the folder holds another sweep.
    """
    with locked(sweep.output_dir) as descriptor:
        _check_same(sweep)
        for value in tqdm(sweep.values, "sweeping", unit="run", disable=None):
            if not _evaluation(sweep, value).is_file():
                logger.info(f"{sweep.key} {value}")
                _run(sweep, value, descriptor)
        rows = [{"value": value, **read_json(_evaluation(sweep, value))} for value in sweep.values]
        write_json(sweep.output_dir / RECORD, {"setting": _setting(sweep), "runs": rows})
    print(sweep_table(sweep.key, rows))
    print(f"\nwritten to {sweep.output_dir / RECORD}")
    return rows


def sweep_table(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table with a line per run: every metric, followed by its baselines in brackets."""
    names = list(rows[0]["metrics"])
    baselines = list(rows[0]["metrics"][names[0]]["baselines"])
    lines = [[key, *names]]
    for row in rows:
        lines.append([str(row["value"]), *(_cell(row["metrics"].get(name)) for name in names)])
    return f"model (baselines: {', '.join(baselines)})\n{format_table(lines)}"


def _cell(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "-"
    values = ", ".join(format_number(value["mean"]) for value in metric["baselines"].values())
    return f"{format_number(metric['mean'])} ({values})"


def _run(sweep: Sweep, value: str, descriptor: int) -> None:
    log = sweep.folder(value) / LOG
    for command in sweep.commands(value):
        code = run_logged(command, log, [descriptor])
        if code:
            raise UserError(f"{sweep.key} {value}: {failure(log, code).reason} (log: {log})")
    remove_resume_files(sweep.folder(value))


def _evaluation(sweep: Sweep, value: str) -> Path:
    """Returns the file that is written last: a run that has it is finished."""
    return sweep.folder(value) / "eval" / METRICS


def _setting(sweep: Sweep) -> dict[str, Any]:
    """Returns the settings that runs must share to be comparable."""
    return {
        "bundle": sweep.name,
        "key": sweep.key,
        "config_files": [str(path) for path in sweep.config_files],
        "overrides": {key: str(value) for key, value in sweep.overrides.items()},
    }


def _check_same(sweep: Sweep) -> None:
    path = sweep.output_dir / RECORD
    if not path.is_file():
        write_json(path, {"setting": _setting(sweep), "runs": []})
    elif read_json(path).get("setting") != _setting(sweep):
        raise UserError(f"{sweep.output_dir}: holds a sweep with other settings; use another --output_dir")

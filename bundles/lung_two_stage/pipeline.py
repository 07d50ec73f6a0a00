"""The chain of stages: each runs in a process of its own, and only where its output is not current."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.errors import UserError
from common.files import locked, read_json, write_json
from common.paths import bundle_root
from common.tools.process import bundle_command, failure, run_logged


@dataclass(frozen=True)
class Record:
    """What is known of a stage's last run.

    Args:
        fingerprint: stands for command, configs and inputs.
        written: stamp of its folder at the end; empty while it runs.
        seconds: it took.
    """

    fingerprint: str
    written: str = ""
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Writes the record as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record at ``path``; None where there is none."""
        return cls(**read_json(path)) if path.is_file() else None


def fingerprint(settings: Mapping[str, Any], configs: Sequence[Path], inputs: Sequence[Path]) -> str:
    """Stands for what decides a stage's output: its settings, its configs' text, the files that it reads."""
    parts = {
        "settings": {name: str(value) for name, value in settings.items()},
        "configs": [hashlib.sha256(path.read_bytes()).hexdigest() for path in configs],
        "inputs": [stamp(folder) for folder in inputs],
    }
    return _hash(parts)


def stamp(folder: Path) -> str:
    """Stands for the files below a folder: names, sizes and times of change; their content is not read."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    facts = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return _hash([[name, found.st_size, found.st_mtime_ns] for name, found in facts])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


RESUME = "resume"
SCANS, BANK = ("dataset_dir", "healthy_slices_dir"), "bank_dir"
FOLDER = "{work_dir}"


@dataclass(frozen=True)
class Stage:
    """A command ``python -m monai.bundle run RUN`` with a config, its overlays and settings.

    Args:
        name: of the stage, unique in the chain.
        run: the config's list to run, e.g. ``training``.
        config: names of files in ``configs/`` without suffix: one, then its overlays.
        writes: the folder below the chain's that belongs to this stage alone.
        after: names of the stages whose folders it reads.
        settings: overrides of its own; ``{work_dir}`` in them stands for the chain's folder.
    """

    name: str
    run: str
    config: Sequence[str]
    writes: str
    after: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def files(self, configs: Path) -> list[Path]:
        """The config and its overlays.

        Raises:
            UserError: one of them is not there.
        """
        files = [configs / f"{name}.yaml" for name in self.config]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]}: stage {self.name} needs this config; correct its name")
        return files

    def overrides(self, configs: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of all stages that this one's config knows, then its own."""
        known: set[str] = set()
        for path in self.files(configs):
            known |= set(ConfigParser.load_config_file(str(path)))
        if BANK in known or SCANS[0] not in known:  # it reads another stage's banks, not the scans
            shared = {key: value for key, value in shared.items() if key not in SCANS}
        own = {key: value for key, value in shared.items() if key in known and value is not None}
        goes_on = {RESUME: "true"} if RESUME in known else {}
        return {**own, **goes_on, **{key: _filled(value, shared) for key, value in self.settings.items()}}

    def command(self, configs: Path, shared: Mapping[str, Any]) -> list[str]:
        """The command line; a begun training goes on."""
        return bundle_command(self.run, self.files(configs), self.overrides(configs, shared))


def stages_of(described: Mapping[str, Mapping[str, Any] | None]) -> list[Stage]:
    """Stages as a config describes them, by name, in their order.

    A stage that an overlay has set to null is left out, and no other one reads it.

    Raises:
        UserError: a stage comes before one that it reads, or two write to one folder.
    """
    stages = [
        Stage(
            name,
            str(entry["run"]),
            _listed(entry["config"]),
            str(entry["writes"]),
            [other for other in _listed(entry.get("after", ())) if described.get(other, entry) is not None],
            dict(entry.get("settings", {})),
        )
        for name, entry in described.items()
        if entry is not None
    ]
    for number, stage in enumerate(stages):
        earlier = stages[:number]
        unknown = sorted(set(stage.after) - {other.name for other in earlier})
        if unknown:
            raise UserError(f"stage {stage.name}: there is no stage {unknown[0]} before it")
        if stage.writes in {other.writes for other in earlier}:
            raise UserError(f"stage {stage.name}: another one writes to {stage.writes} too")
    return stages


def _filled(value: Any, shared: Mapping[str, Any]) -> Any:
    """The value with the chain's folder in its place."""
    return value.replace(FOLDER, str(shared["work_dir"])) if isinstance(value, str) else value


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


RECORDS = "pipeline"
BUNDLE = "lung_two_stage"

logger = logging.getLogger(__name__)


class Chain:
    """Runs stages in order; a stage whose command, configs and inputs are those of its last run is skipped.

    The same command goes on with a chain that was stopped: finished stages stay, a begun training is
    resumed. A stage that is out of date begins anew, and what it had written is removed first. Folders that
    the chain did not write are never touched.

    Args:
        stages: as a config describes them, see `bundles.lung_two_stage.pipeline.stages_of`.
        work_dir: the folder of all stages; their logs and records are in its ``pipeline/``.
        shared: settings for every stage whose config has them; None is left out.
        before: further stages that must have run before, such as those that the baselines are compared with.
    """

    def __init__(
        self,
        stages: Mapping[str, Mapping[str, Any] | None],
        work_dir: str | Path,
        shared: Mapping[str, Any] | None = None,
        before: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        self.stages = stages_of({**(before or {}), **stages})
        self.work_dir = Path(work_dir).resolve()
        self.shared = {**(shared or {}), "work_dir": self.work_dir}
        self.configs = Path(bundle_root(BUNDLE)) / "configs"

    def run(self) -> list[str]:
        """Runs what is not current; returns the names of the stages that ran.

        Raises:
            UserError: a stage failed (its last line, and where its log is), or its folder is not the chain's.
        """
        ran = []
        with locked(self.work_dir) as descriptor:
            for number, stage in enumerate(self.stages, 1):
                place = f"stage {number} of {len(self.stages)}, {stage.name}"
                mark = self._fingerprint(stage)
                if self._current(stage, mark):
                    logger.info(f"{place}: current")
                    continue
                logger.info(f"{place}: {stage.run} of {', '.join(stage.config)}")
                self._run(stage, mark, descriptor)
                ran.append(stage.name)
        logger.info(self.summary())
        return ran

    def summary(self) -> str:
        """One line: how long the stages took."""
        taken = [(stage.name, Record.load(self._record(stage))) for stage in self.stages]
        listed = ", ".join(f"{name} {record.seconds:.0f} s" for name, record in taken if record)
        return f"{self.work_dir}: {listed}"

    def _run(self, stage: Stage, mark: str, descriptor: int) -> None:
        self._make_way(stage, mark)
        Record(mark).save(self._record(stage))
        begin = time.monotonic()
        log = self._record(stage).with_suffix(".log")
        code = run_logged(stage.command(self.configs, self.shared), log, [descriptor])
        if code:
            raise UserError(f"stage {stage.name}: {failure(log, code).reason} (log: {log})")
        Record(mark, stamp(self._folder(stage)), time.monotonic() - begin).save(self._record(stage))

    def _current(self, stage: Stage, mark: str) -> bool:
        record = Record.load(self._record(stage))
        return (
            record is not None and record.fingerprint == mark and record.written == stamp(self._folder(stage))
        )

    def _make_way(self, stage: Stage, mark: str) -> None:
        """Removes what an earlier run of other settings or inputs has left, but for a begun run of these."""
        folder, record = self._folder(stage), Record.load(self._record(stage))
        if not folder.exists() or (record is not None and record.fingerprint == mark and not record.written):
            return
        if record is None:
            raise UserError(
                f"{folder}: was not written by the chain; move it away or choose another --work_dir"
            )
        shutil.rmtree(folder)

    def _fingerprint(self, stage: Stage) -> str:
        named: dict[str, Stage] = {other.name: other for other in self.stages}
        inputs: Sequence[Path] = [self._folder(named[name]) for name in stage.after]
        overrides = stage.overrides(self.configs, self.shared)
        data = [Path(overrides["dataset_dir"])] if "dataset_dir" in overrides else []
        return fingerprint(overrides, stage.files(self.configs), [*inputs, *data])

    def _folder(self, stage: Stage) -> Path:
        return self.work_dir / stage.writes

    def _record(self, stage: Stage) -> Path:
        return self.work_dir / RECORDS / f"{stage.name}.json"

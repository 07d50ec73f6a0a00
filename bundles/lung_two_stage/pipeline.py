"""The pipeline of stages, and the phantoms that it starts from without data.

A stage runs in a process of its own, and only if its output is not current.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.data.phantoms.writing import ensure_phantoms
from common.errors import UserError
from common.files import locked, read_json, write_json
from common.paths import bundle_root
from common.tools.runs import bundle_command, failure, run_logged

BUNDLE = "lung_two_stage"
RECORDS = "pipeline"
SCANS, BANK = ("dataset_dir", "healthy_slices_dir"), "bank_dir"
WORK_DIR = "{work_dir}"
PATIENTS, SHAPE = 16, (128, 128, 32)
"""Of the phantoms; voxels of 2.8 x 2.8 x 7.5 mm: nodules are 3 to 9 pixels wide."""

logger = logging.getLogger(__name__)
Described = Mapping[str, Mapping[str, Any] | None]
Budgets = Mapping[str, Mapping[str, Any]]


def chest_scans(folder: str | os.PathLike[str]) -> Path:
    """Makes chest phantoms with nodules and otherwise healthy lungs, if the folder has none; returns it.

    Example:
        ``python -m monai.bundle run extraction --config_file bundles/lung_two_stage/configs/extract.yaml``
        calls it where no ``--dataset_dir`` is given, and reads the 16 phantoms that it leaves, scans in
        ``images/`` and their nodules in ``labels/nodule/``, from ``bundles/lung_two_stage/data/phantoms``.
    """
    return ensure_phantoms(folder, PATIENTS, 0, SHAPE, with_lesions=False)


@dataclass(frozen=True)
class Stage:
    """A command ``python -m monai.bundle run RUN`` with a config, its overlays and settings.

    Args:
        name: of the stage, unique in the pipeline.
        config: names of files in ``configs/`` without suffix: one, then its overlays.
        run: the config's list to run.
        writes: the folder below the work folder that only this stage writes; its ``output_dir``.
        after: names of the stages whose folders it reads.
        settings: overrides of the config; ``{work_dir}`` in them stands for the work folder.
    """

    name: str
    config: Sequence[str]
    run: str
    writes: str
    after: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def files(self, configs: Path) -> list[Path]:
        """The config and its overlays.

        Raises:
            UserError: a file is missing.
        """
        files = [configs / f"{name}.yaml" for name in self.config]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]}: stage {self.name} needs this config; correct its name")
        return files

    def overrides(self, configs: Path, work_dir: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
        """The stage's settings, and before them the shared ones that its config has."""
        known = set().union(*(config_keys(path) for path in self.files(configs)))
        defaults = {"work_dir": work_dir, **shared, "output_dir": work_dir / self.writes, "resume": "true"}
        if BANK in known or SCANS[0] not in known:  # the stage reads another stage's banks, not the scans
            defaults = {key: value for key, value in defaults.items() if key not in SCANS}
        own = {key: _fill(value, work_dir) for key, value in self.settings.items()}
        return {key: value for key, value in defaults.items() if key in known and value is not None} | own


@cache
def config_keys(path: Path) -> frozenset[str]:
    """Top-level keys of a config file."""
    return frozenset(ConfigParser.load_config_file(str(path)))


def _fill(value: Any, work_dir: Path) -> Any:
    """The value with the work folder in the place of ``{work_dir}``."""
    if isinstance(value, Mapping):
        return {key: _fill(entry, work_dir) for key, entry in value.items()}
    return value.replace(WORK_DIR, str(work_dir)) if isinstance(value, str) else value


def parse_stages(described: Described, budgets: Budgets | None = None) -> list[Stage]:
    """Stages in their order, as a config describes them.

    Example:
        >>> described = {"nodules": {"config": "train_nodules", "settings": ["short", {"seed": 1}]}}
        >>> parse_stages(described, budgets={"short": {"max_epochs": 9}})[0].settings
        {'max_epochs': 9, 'seed': 1}

    Args:
        described: the arguments of `Stage` by the stage's name. ``config`` and ``after`` may be single names,
            ``run`` is ``training`` and ``writes`` the stage's name by default. ``settings`` is a mapping,
            the name of a budget, or a list of them, of which later ones win. A stage that an overlay has set
            to null is left out, and from every ``after`` too.
        budgets: settings by name.
    Raises:
        UserError: a stage comes before one that it reads, two write to one folder, or a budget is unknown.
    """
    stages: list[Stage] = []
    for name, entry in described.items():
        if entry is None:
            continue
        after = [
            other for other in _as_list(entry.get("after", ())) if described.get(other, entry) is not None
        ]
        settings: dict[str, Any] = {}
        for part in _as_list(entry.get("settings", ())):
            if isinstance(part, str) and part not in (budgets or {}):
                names = ", ".join(budgets or {})
                raise UserError(f"stage {name}: there is no budget {part}; name one of {names}")
            settings |= (budgets or {})[part] if isinstance(part, str) else part
        run, writes = str(entry.get("run", "training")), str(entry.get("writes", name))
        unknown = sorted(set(after) - {other.name for other in stages})
        if unknown:
            raise UserError(f"stage {name}: there is no stage {unknown[0]} before it")
        if writes in {other.writes for other in stages}:
            raise UserError(f"stage {name}: another one writes to {writes} too")
        stages.append(Stage(name, _as_list(entry["config"]), run, writes, after, settings))
    return stages


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Mapping) else list(value)


@dataclass(frozen=True)
class StageRecord:
    """What is known of a stage's last run.

    Args:
        fingerprint: of its settings, configs and inputs.
        written: stamp of its folder at the end; empty while it runs.
        seconds: how long it took.
    """

    fingerprint: str
    written: str = ""
    seconds: float = 0.0


def stamp_folder(folder: Path) -> str:
    """Hash of the names, sizes and modification times of the files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return _hash([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Pipeline:
    """Runs stages in order; a stage whose settings, configs and inputs are those of its last run is skipped.

    The same command continues a pipeline that was stopped: finished stages stay, an unfinished training is
    resumed. A stage that is out of date starts again, and its earlier output is removed first. Folders that
    the pipeline did not write are never touched.

    Args:
        stages: described as for `parse_stages`.
        work_dir: the folder of all stages; their logs and records are in its ``pipeline/``.
        shared: settings for every stage whose config has them; None is left out.
        before: stages that must run before, such as those that baselines are compared with.
        budgets: settings by name, which stages share.

    Example:
        >>> stages = {"extraction": {"config": "extract"}, "nodules": {"config": "train_nodules"}}
        >>> [stage.writes for stage in Pipeline(stages, "work").stages]
        ['extraction', 'nodules']
    """

    def __init__(
        self,
        stages: Described,
        work_dir: str | Path,
        shared: Mapping[str, Any] | None = None,
        before: Described | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self.stages = parse_stages({**(before or {}), **stages}, budgets)
        self.work_dir, self.shared = Path(work_dir).resolve(), dict(shared or {})
        self.configs = Path(bundle_root(BUNDLE)) / "configs"

    def run(self) -> list[str]:
        """Runs what is not current; returns the names of the stages that ran.

        Raises:
            UserError: a stage failed (its last line, and where its log is), or its folder is not the
                pipeline's.
        """
        ran = []
        with locked(self.work_dir) as descriptor:
            for number, stage in enumerate(self.stages, 1):
                title = f"stage {number} of {len(self.stages)}, {stage.name}"
                fingerprint, record = self._fingerprint(stage), self.record(stage)
                folder = self.work_dir / stage.writes
                if record == StageRecord(fingerprint, stamp_folder(folder), record.seconds if record else 0):
                    logger.info(f"{title}: current")
                    continue
                logger.info(f"{title}: {stage.run} of {', '.join(stage.config)}")
                self._remove_outdated(stage, folder, fingerprint)
                self._run(stage, folder, fingerprint, descriptor)
                ran.append(stage.name)
        records = [(stage.name, self.record(stage)) for stage in self.stages]
        times = ", ".join(f"{name} {record.seconds:.0f} s" for name, record in records if record)
        logger.info(f"{self.work_dir}: {times}")
        return ran

    def overrides(self, stage: Stage) -> dict[str, Any]:
        """Everything that the stage's command overrides."""
        return stage.overrides(self.configs, self.work_dir, self.shared)

    def record(self, stage: Stage) -> StageRecord | None:
        """The record of the stage's last run; None if there was none."""
        path = self._record_file(stage)
        return StageRecord(**read_json(path)) if path.is_file() else None

    def _run(self, stage: Stage, folder: Path, fingerprint: str, descriptor: int) -> None:
        file = self._record_file(stage)
        write_json(file, asdict(StageRecord(fingerprint)))
        start, log = time.monotonic(), file.with_suffix(".log")
        command = bundle_command(stage.run, stage.files(self.configs), self.overrides(stage))
        code = run_logged(command, log, [descriptor])
        if code:
            raise UserError(f"stage {stage.name}: {failure(log, code).reason} (log: {log})")
        seconds = time.monotonic() - start
        write_json(file, asdict(StageRecord(fingerprint, stamp_folder(folder), seconds)))

    def _remove_outdated(self, stage: Stage, folder: Path, fingerprint: str) -> None:
        """Removes the output of other settings or inputs; an unfinished run of the same ones stays.

        Raises:
            UserError: the pipeline did not write the folder.
        """
        record = self.record(stage)
        unfinished = record is not None and record.fingerprint == fingerprint and not record.written
        if not folder.exists() or unfinished:
            return
        if record is None:
            raise UserError(
                f"{folder}: was not written by the pipeline; move it away or choose another --work_dir"
            )
        shutil.rmtree(folder)

    def _fingerprint(self, stage: Stage) -> str:
        """Hash of the stage's settings, its configs' text, and the files that it reads."""
        folders = {other.name: self.work_dir / other.writes for other in self.stages}
        overrides = self.overrides(stage)
        inputs = [folders[name] for name in stage.after]
        if "dataset_dir" in overrides:
            inputs.append(Path(overrides["dataset_dir"]))
        return _hash(
            {
                "settings": {name: str(value) for name, value in overrides.items()},
                "configs": [
                    hashlib.sha256(path.read_bytes()).hexdigest() for path in stage.files(self.configs)
                ],
                "inputs": [stamp_folder(folder) for folder in inputs],
            }
        )

    def _record_file(self, stage: Stage) -> Path:
        return self.work_dir / RECORDS / f"{stage.name}.json"

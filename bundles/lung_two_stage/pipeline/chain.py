"""The chain of stages: each runs in a process of its own, and only where its output is not current."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundles.lung_two_stage.pipeline.currency import Record, fingerprint, stamp
from bundles.lung_two_stage.pipeline.stage import Stage, stages_of
from common.errors import UserError
from common.paths import bundle_root
from common.tuning.lock import locked
from common.tuning.process import run_logged
from common.tuning.trial import failure

RECORDS = "pipeline"
BUNDLE = "lung_two_stage"

logger = logging.getLogger(__name__)


class Chain:
    """Runs stages in order; a stage whose command, configs and inputs are those of its last run is skipped.

    The same command goes on with a chain that was stopped: finished stages stay, a begun training is
    resumed. A stage that is out of date begins anew, and what it had written is removed first. Folders that
    the chain did not write are never touched.

    Args:
        stages: as a config describes them, see `bundles.lung_two_stage.pipeline.stage.stages_of`.
        work_dir: the folder of all stages; their logs and records are in its ``pipeline/``.
        shared: settings for every stage whose config has them; None is left out.
        before: further stages that must have run before, such as those that the rivals are compared with.
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

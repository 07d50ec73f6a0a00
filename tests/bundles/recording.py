"""Handlers for test runs: which samples each process trained on; a process that dies."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from common.training.distributed import rank


class VisitedSamples:
    """Appends one line ``[epoch, sample, ...]`` an iteration to ``FOLDER/rank_N.jsonl``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._record)

    def _record(self, engine: Engine) -> None:
        state: Any = engine.state
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank_{rank()}.jsonl").open("a") as file:
            file.write(json.dumps([state.epoch, *state.batch["sample"].tolist()]) + "\n")


class KilledOnce:
    """Kills process 1 at one iteration, the first time that it gets there."""

    def __init__(self, iteration: int, mark: str) -> None:
        self.iteration, self.mark = iteration, Path(mark)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self._kill)

    def _kill(self, engine: Engine) -> None:
        if rank() == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

"""A handler for test runs: which samples each process trained on."""

from __future__ import annotations

import json
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

"""An evaluator's predictions, gathered file by file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch import Tensor


class FileCollector(ABC):
    """Holds predictions until a file's last slice is there, then has the file written.

    Args:
        files: the positions of each file's slices, in the file's order.

    Attributes:
        written: the files written so far.
    """

    def __init__(self, files: Mapping[Path, Sequence[int]]) -> None:
        self.files = dict(files)
        self.written: list[Path] = []
        self._source = {position: file for file, positions in files.items() for position in positions}
        self._slices: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Takes the predictions of every iteration; reports at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self.report)

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the prediction (C, S, S) in [-1, 1] of the slice at ``position``."""
        self._slices[position] = self.keep(position, prediction)
        source = self._source[position]
        positions = self.files[source]
        if all(p in self._slices for p in positions):
            self.written.append(self.write(source, [self._slices.pop(p) for p in positions]))

    @abstractmethod
    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """What is held of a prediction until its file is complete."""

    @abstractmethod
    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Writes the result for the file ``source`` from what was kept of its slices; returns its path."""

    @abstractmethod
    def report(self) -> None:
        """Says at the end what was written."""

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            self.add(int(item["sample"]), output["pred"])

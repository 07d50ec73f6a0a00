"""The resume file: all that decides the rest of a run, whole or absent, with the one before it kept."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Events

from common.errors import UserError
from common.files import atomic_write, remove_leftovers
from common.training import distributed
from common.training.saving import save_tensors
from common.training.state import STATE_FORMAT
from common.training.trainer import AdversarialTrainer

logger = logging.getLogger(__name__)
CURRENT, PREVIOUS = "resume.pt", "resume_previous.pt"


class Stateful(Protocol):
    """A handler whose state belongs to the run."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``."""


def refuse_existing(folder: str | os.PathLike[str], resume: bool) -> None:
    """Refuses to start a run where one already is, unless it is to be resumed.

    Raises:
        UserError: ``folder`` holds a run and ``resume`` is false.
    """
    found = [name for name in (CURRENT, PREVIOUS, "model.pt") if (Path(folder) / name).exists()]
    if found and not resume:
        raise UserError(
            f"{Path(folder) / found[0]}: a run is already there; go on with --resume true, "
            "or start another with --output_dir"
        )


def write_state(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Writes the resume file atomically; the file before it becomes ``resume_previous.pt``.

    Raises:
        UserError: the disk is full or read-only; both earlier files are intact then.
    """
    current = Path(folder) / CURRENT
    with atomic_write(current) as temporary:
        save_tensors(state, temporary)
        if current.exists():
            os.replace(current, current.with_name(PREVIOUS))
    return current


def read_state(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The newest readable resume state in ``folder``; None where there is none at all.

    Raises:
        UserError: there are resume files but none can be read.
    """
    paths = [Path(folder) / name for name in (CURRENT, PREVIOUS)]
    present = [path for path in paths if path.exists()]
    for path in present:
        try:
            return _load(path)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            logger.warning(
                f"{path}: unreadable resume file ({type(error).__name__}), trying the one before it"
            )
    if present:
        raise UserError(f"{present[0]}: no resume file is readable; delete {folder} to start anew")
    return None


class Resume:
    """Saves the run while it trains and brings it back.

    Attach it last: what it saves must include what the other handlers did at the same event. At the end of
    an epoch it saves after validation and schedules, else at every ``interval`` iterations.

    Args:
        folder: where the resume files lie, usually ``OUTPUT_DIR/models``.
        resume: bring back the run found there.
        interval: iterations between saves beside those at the end of epochs; 0 for none.
        epochs: epochs between saves.
        handlers: stateful handlers by name.
        flush: called before each save, so that logs on disk reach at least as far as the resume file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        resume: bool = False,
        interval: int = 0,
        epochs: int = 1,
        handlers: Mapping[str, Stateful] | None = None,
        flush: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.folder, self.resume = Path(folder), resume
        self.interval, self.epochs = interval, epochs
        self.handlers, self.flush = dict(handlers or {}), list(flush)

    def attach(self, engine: AdversarialTrainer) -> None:
        """Restores the run where asked, then saves at the chosen events and when the run ends."""
        if distributed.is_main():
            remove_leftovers(self.folder)
        if self.resume:
            self.restore(engine)
        if self.interval:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self._save_within_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def restore(self, engine: AdversarialTrainer) -> None:
        """Loads the newest readable state into trainer and handlers; says so, or that there is none."""
        state = read_state(self.folder)
        if state is None:
            logger.info(f"{self.folder}: nothing to resume, starting a new run")
            return
        engine.load_training_state(state)
        for name, handler in self.handlers.items():
            if name in state["handlers"]:
                handler.load_state_dict(state["handlers"][name])
        logger.info(f"{self.folder}: resumed after iteration {state['iteration']}")

    def save(self, engine: AdversarialTrainer) -> None:
        """Writes the state of this moment (process 0; the others contribute their random state)."""
        state = engine.training_state()
        if distributed.rank() > 0:
            return
        for flush in self.flush:
            flush()
        state["handlers"] = {name: handler.state_dict() for name, handler in self.handlers.items()}
        write_state(self.folder, state)

    def _save_within_epoch(self, engine: AdversarialTrainer) -> None:
        if engine.state.iteration % engine.state.epoch_length:
            self.save(engine)


def _load(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != STATE_FORMAT:
        raise UserError(
            f"{path}: resume format {state['format']} is not {STATE_FORMAT}; use the version that wrote it"
        )
    return dict(state)

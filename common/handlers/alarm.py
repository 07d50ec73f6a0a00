"""One line when something goes wrong, instead of one at every look."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from common.handlers.stopping import stop_after_iteration
from common.training.distributed import any_rank, is_main

logger = logging.getLogger(__name__)


class Alarm:
    """Says when something begins to go wrong, is silent while it lasts, and can end the run.

    Args:
        what: what goes wrong, e.g. ``mode collapse``.
        stop: end the run (cleanly, after this iteration). Such a run does not train on when it is resumed,
            unless it is resumed without ``stop``.

    Attributes:
        on: it goes wrong at present.
        events: how often it has begun.
    """

    def __init__(self, what: str, stop: bool = False) -> None:
        self.what, self.stop = what, stop
        self.on, self.events = False, 0

    def attach(self, engine: Engine) -> None:
        """Keeps a run that this alarm ended from being resumed."""
        engine.add_event_handler(Events.STARTED, self._start)

    def update(self, engine: Engine, wrong: bool, reason: str) -> None:
        """Takes one look; every process must call it.

        Args:
            wrong: whether it goes wrong.
            reason: the numbers behind it, for the line.
        """
        wrong, before = any_rank(wrong), self.on
        self.on = wrong
        if wrong and not before:
            self.events += 1
            self._announce(engine, reason)

    def _announce(self, engine: Engine, reason: str) -> None:
        place = f"iteration {engine.state.iteration}, epoch {engine.state.epoch}"
        if is_main():
            logger.warning("%s at %s: %s%s", self.what, place, reason, "; the run stops here" * self.stop)
        if self.stop:
            stop_after_iteration(engine)

    def _start(self, engine: Engine) -> None:
        if self.stop and self.on:
            logger.warning("%s had ended this run; it goes on without that setting", self.what)
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Whether it is on and how often it has gone off."""
        return {"on": self.on, "events": self.events}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``."""
        self.on, self.events = bool(state["on"]), int(state["events"])

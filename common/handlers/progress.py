"""A progress bar over the whole run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from common.handlers.closing import on_exception
from common.handlers.readings import logs
from common.training.distributed import is_main

QUIET_INTERVAL = 5.0  # seconds between lines where the output is a file, not a terminal
SHOWN = 3


class ProgressBar:
    """Iterations of the whole run with it/s, the time left and a few losses, on standard error.

    Ignite's own bar counts the iterations of one epoch and starts at 0 after a resume, so it cannot show
    when the run will be over.

    Args:
        names: entries of ``engine.state.logs`` to show; the first three where None.
        description: the text before the bar.
    """

    def __init__(self, names: Sequence[str] | None = None, description: str = "training") -> None:
        self.names = None if names is None else list(names)
        self.description = description
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Attach last, so that the bar moves when an iteration is really done."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self.close)
        on_exception(engine, self.close)

    def close(self, engine: Engine | None = None) -> None:
        """Draws the last state and gives the line back."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _open(self, engine: Engine) -> None:
        self.close()
        state: Any = engine.state
        self.bar = tqdm(
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            desc=self.description,
            unit="it",
            disable=not is_main(),
            dynamic_ncols=True,
            **pace(),
        )

    def _advance(self, engine: Engine) -> None:
        if self.bar is None:
            return
        values = logs(engine)
        names = (
            list(values)[:SHOWN] if self.names is None else [name for name in self.names if name in values]
        )
        self.bar.set_postfix({name: f"{values[name]:.3g}" for name in names}, refresh=False)
        self.bar.update(engine.state.iteration - self.bar.n)


def pace() -> dict[str, Any]:
    """A terminal is redrawn often; a log file is not to be flooded."""
    if sys.stderr.isatty():
        return {}
    return {"mininterval": QUIET_INTERVAL, "maxinterval": 2 * QUIET_INTERVAL}

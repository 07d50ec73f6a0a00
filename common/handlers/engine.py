"""The engine of a training, for handlers: its state, and clean ends of its run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from ignite.engine import Engine, Events
from torch import nn

from common.errors import UserError
from common.training.distributed import any_rank


def logs(engine: Engine) -> dict[str, float]:
    """Returns the losses and measures of this iteration (``engine.state.logs``); handlers may add to them."""
    state: Any = engine.state
    return state.logs


def networks(engine: Engine) -> Mapping[str, nn.Module]:
    """Returns the trainer's networks by name."""
    trainer: Any = engine
    return trainer.networks


def batches_per_epoch(engine: Engine) -> int:
    """Returns the number of batches that the trainer's sampler gives in an epoch."""
    trainer: Any = engine
    return trainer.stream.batches_per_epoch


def logged(engine: Engine, name: str) -> float:
    """Returns the value of ``name`` in ``engine.state.logs`` (this iteration).

    Raises:
        UserError: the trainer logs no such name.
    """
    values = logs(engine)
    if name not in values:
        raise UserError(f"handlers: the trainer logs no {name!r}; it logs {', '.join(values)}")
    return float(values[name])


def prediction(engine: Engine) -> torch.Tensor:
    """Returns the images (B, C, H, W) generated in this iteration, also if MONAI has decollated them."""
    output: Any = engine.state.output
    if isinstance(output, Mapping):
        return output["pred"]
    return torch.stack([item["pred"] for item in output])  # (B, C, H, W)


def contrasts(engine: Engine) -> torch.Tensor:
    """Returns the standard deviation over the pixels of each image generated in this iteration: (B,).

    It takes the first channel of generators with several, and the classes of a classifier's output (B, K).
    """
    predicted = prediction(engine).detach().float()
    shown = predicted if predicted.ndim == 2 else predicted[:, 0]
    return shown.flatten(1).std(dim=1)


def epoch_due(engine: Engine, interval: int) -> bool:
    """Tells whether this is the last iteration of every ``interval``-th epoch; never for 0."""
    state: Any = engine.state
    return bool(interval > 0 and state.iteration % (interval * state.epoch_length) == 0)


def stop_after_iteration(engine: Engine) -> None:
    """Ends the run after this iteration, or after the epoch if it is the epoch's last.

    Ignite's ``terminate`` skips EPOCH_COMPLETED: after the last iteration of an epoch the learning-rate
    schedules would miss a step, and a resumed run would differ from an uninterrupted one.
    """
    if epoch_due(engine, 1):
        # as it is, terminate would take the engine that it is called with for `skip_completed`
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=engine.state.epoch), lambda: engine.terminate())
    else:
        engine.terminate()


logger = logging.getLogger(__name__)


class TimeLimit:
    """Ends the run cleanly when its CPU time is spent, including that of earlier, resumed parts.

    Ignite's ``TimeLimit`` counts wall-clock time of this process alone.

    Args:
        cpu_minutes: CPU time of this process (all its threads, without loader workers); None for no limit.

    Example:
        >>> engine = Engine(lambda engine, batch: None)
        >>> TimeLimit(cpu_minutes=0.0).attach(engine)
        >>> engine.run(range(5), max_epochs=2).iteration
        0
    """

    def __init__(self, cpu_minutes: float | None = None) -> None:
        self.cpu_minutes = cpu_minutes
        self.cpu_spent = 0.0  # seconds of earlier parts
        self._started: float | None = None  # None while the run does not go on

    def attach(self, engine: Engine) -> None:
        """Attach before `Resume`, so that the resume file includes the time of this iteration."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    @property
    def spent(self) -> float:
        """Seconds used so far, including earlier parts."""
        return self.cpu_spent + (0.0 if self._started is None else time.process_time() - self._started)

    def _start(self, engine: Engine) -> None:
        self._started = time.process_time()
        if self._is_spent(engine):
            engine.terminate()

    def _stop(self, engine: Engine) -> None:
        self.cpu_spent, self._started = self.spent, None

    def _check(self, engine: Engine) -> None:
        if self._is_spent(engine):
            stop_after_iteration(engine)

    def _is_spent(self, engine: Engine) -> bool:
        minutes = self.spent / 60
        spent = self.cpu_minutes is not None and any_rank(minutes >= self.cpu_minutes)
        if spent:
            logger.info(
                "time budget spent at iteration %d: %.1f CPU minutes", engine.state.iteration, minutes
            )
        return spent

    def state_dict(self) -> dict[str, Any]:
        """Returns the seconds used so far."""
        return {"cpu_seconds": self.spent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.cpu_spent = float(state["cpu_seconds"])


_CALLBACKS: WeakKeyDictionary[Engine, list[Callable[[], None]]] = WeakKeyDictionary()


def on_exception(engine: Engine, callback: Callable[[], None]) -> None:
    """Calls ``callback`` when a run of ``engine`` ends with an exception, which then propagates.

    Ignite swallows an exception once a handler for it is attached, and a handler that raises it again keeps
    later ones from running. So an engine gets one such handler, which calls all callbacks and then raises.
    Ignite fires twice for an error within an epoch: callbacks must tolerate a second call.
    """
    if engine not in _CALLBACKS:
        _CALLBACKS[engine] = []
        engine.add_event_handler(Events.EXCEPTION_RAISED, _close_and_raise)
    _CALLBACKS[engine].append(callback)


def _close_and_raise(engine: Engine, error: BaseException) -> None:
    with ExitStack() as stack:  # all of them, even where one fails, as on a full disk
        for callback in reversed(_CALLBACKS[engine]):
            stack.callback(callback)
        raise error

"""Ends a run early so that it can go on later as if it had never stopped."""

from __future__ import annotations

from ignite.engine import Engine, Events

from common.handlers.readings import epoch_due


def stop_after_iteration(engine: Engine) -> None:
    """Ends the run once this iteration, and the epoch where it is the last of one, is complete.

    Ignite's ``terminate`` skips EPOCH_COMPLETED: after the last iteration of an epoch the learning-rate
    schedules would miss a step, and a resumed run would differ from one that was never stopped.
    """
    if epoch_due(engine, 1):
        # as it is, terminate would take the engine that it is called with for `skip_completed`
        engine.add_event_handler(Events.EPOCH_COMPLETED(once=engine.state.epoch), lambda: engine.terminate())
    else:
        engine.terminate()

"""Tidying up when a run fails, without swallowing the error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from weakref import WeakKeyDictionary

from ignite.engine import Engine, Events

_CALLBACKS: WeakKeyDictionary[Engine, list[Callable[[], None]]] = WeakKeyDictionary()


def on_exception(engine: Engine, callback: Callable[[], None]) -> None:
    """Calls ``callback`` when a run of ``engine`` ends with an exception, which is then raised on.

    Ignite swallows an exception as soon as one handler for it is attached, and a handler that raises it
    again keeps the later ones from running. So an engine gets one such handler, which calls all callbacks and
    then raises. Ignite asks twice for an error in the middle of an epoch: callbacks must bear a second call.
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

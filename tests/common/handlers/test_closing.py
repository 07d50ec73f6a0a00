from __future__ import annotations

import pytest
from ignite.engine import Engine

from common.handlers.closing import on_exception


def test_all_callbacks_run_and_the_error_is_raised_on() -> None:
    def fail(engine: Engine, batch: int) -> None:
        raise ArithmeticError("three")

    calls: list[str] = []
    engine = Engine(fail)
    on_exception(engine, lambda: calls.append("first"))
    on_exception(engine, lambda: calls.append("second"))
    with pytest.raises(ArithmeticError, match="three"):
        engine.run([1])
    assert calls[:2] == ["first", "second"]


def test_a_failing_callback_does_not_keep_the_others_from_running() -> None:
    def fail(engine: Engine, batch: int) -> None:
        raise ArithmeticError("three")

    def full() -> None:
        raise OSError("disk full")

    calls: list[str] = []
    engine = Engine(fail)
    on_exception(engine, full)
    on_exception(engine, lambda: calls.append("second"))
    with pytest.raises(OSError, match="disk full"):
        engine.run([1])
    assert calls[:1] == ["second"]

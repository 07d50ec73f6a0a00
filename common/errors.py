"""Errors for people: one line that names the file and says what to do."""

from __future__ import annotations

import os
import sys
from types import TracebackType

DEBUG_VARIABLE = "SYNTHESIS_DEBUG"


class UserError(Exception):
    """Something the user can put right. The message is one line: the file, what is wrong, what to do."""


class TrainingDiverged(UserError):
    """Training produced NaN, inf or constant images; the last good checkpoint was kept."""


def debug_wanted() -> bool:
    """True where the environment asks for tracebacks (``SYNTHESIS_DEBUG=1``)."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def one_line(error: BaseException) -> str:
    """The root cause of ``error`` as one line; all but a `UserError` get their type's name."""
    root = root_cause(error)
    text = " ".join(str(root).split()) or "no message"
    return text if isinstance(root, UserError) else f"{type(root).__name__}: {text}"


def root_cause(error: BaseException) -> BaseException:
    """The first `UserError` in the chain of causes, else the innermost (MONAI wraps what configs raise)."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return next((item for item in chain if isinstance(item, UserError)), chain[-1])


def show_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """A ``sys.excepthook`` that prints one line instead of a traceback, unless debugging is asked for."""
    if debug_wanted() or issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    hint = "" if isinstance(root_cause(error), UserError) else f" (traceback: set {DEBUG_VARIABLE}=1)"
    print(f"error: {one_line(error)}{hint}", file=sys.stderr)


def install_hook() -> None:
    """Makes uncaught errors one line each; the exit code stays non-zero."""
    sys.excepthook = show_one_line

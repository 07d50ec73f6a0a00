from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import (
    DEBUG_VARIABLE,
    TrainingDiverged,
    UserError,
    check_int,
    debug_wanted,
    one_line,
    read_errors,
    root_cause,
)


def chained(cause: BaseException, *wrappers: BaseException) -> BaseException:
    error = cause
    for wrapper in wrappers:
        wrapper.__cause__, error = error, wrapper
    return error


def test_the_users_error_speaks_through_what_wraps_it() -> None:
    error = chained(OSError("x"), UserError("a.png: cannot be read"), RuntimeError("failed to instantiate"))
    assert one_line(error) == "a.png: cannot be read"
    assert one_line(chained(TrainingDiverged("iteration 3"), RuntimeError("y"))) == "iteration 3"


def test_without_one_the_innermost_cause_is_named() -> None:
    error = chained(ZeroDivisionError("division\n by   zero"), RuntimeError("wrapped"))
    assert one_line(error) == "ZeroDivisionError: division by zero"
    assert one_line(KeyError()) == "KeyError: no message"


def test_an_error_raised_while_handling_another_is_followed_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        try:
            raise UserError("first")
        except UserError:
            raise RuntimeError("second")  # noqa: B904
    assert str(root_cause(caught.value)) == "first"


def test_a_ring_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert root_cause(first) is second


@pytest.mark.parametrize(("value", "wanted"), [("", False), ("0", False), ("1", True)])
def test_tracebacks_are_asked_for(monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, value)
    assert debug_wanted() is wanted


@pytest.mark.parametrize(
    ("debug", "error", "shown"),
    [
        ("", "UserError('a.png: broken')", ["error: a.png: broken"]),
        ("", "ValueError('x')", [f"error: ValueError: x (traceback: set {DEBUG_VARIABLE}=1)"]),
    ],
)
def test_the_hook_prints_one_line_and_the_exit_code_stays(debug: str, error: str, shown: list[str]) -> None:
    done = run_failing(error, debug)
    assert done.returncode == 1 and done.stderr.splitlines() == shown


def test_debugging_shows_the_traceback() -> None:
    assert "Traceback (most recent call last)" in run_failing("UserError('a.png: broken')", "1").stderr


def run_failing(error: str, debug: str) -> subprocess.CompletedProcess[str]:
    code = f"from common.errors import UserError, install_hook\ninstall_hook()\nraise {error}"
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), DEBUG_VARIABLE: debug}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("value", "number"), [(3, 3), ("12", 12), (" 2 ", 2)])
def test_numbers_and_their_text_are_taken(value: object, number: int) -> None:
    assert check_int("steps", value, least=2) == number


@pytest.mark.parametrize("value", [1, -3, "-3", "two", 2.5, True, None, "", "2.0", [2]])
def test_others_are_refused_with_the_settings_name(value: object) -> None:
    with pytest.raises(UserError, match=r"^steps .*: give a whole number of at least 2$"):
        check_int("steps", value, least=2)


def test_of_itks_message_the_place_in_its_source_is_left_out() -> None:
    said = "/ITK/src/itkNrrdImageIO.cxx:935:\nITK ERROR: NrrdImageIO(0x7f54): Read: Error reading\na.nrrd"
    with pytest.raises(UserError) as caught, read_errors(Path("a.nrrd")):
        raise RuntimeError(said)
    expected = "a.nrrd: cannot be read (ITK: Read: Error reading a.nrrd); replace the file or remove it"
    assert str(caught.value) == expected

from __future__ import annotations

import os

import pytest

from common.cli import Parser, overrides_of
from common.errors import DEBUG_VARIABLE, UserError


def parser() -> Parser:
    made = Parser("What it does.\n\nExample:\n    python scripts/x.py")
    made.add_argument("--count", type=int, default=1)
    return made


def test_debug_is_acted_on_and_is_no_argument_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "0")
    assert vars(parser().parse_args(["--count", "2"])) == {"count": 2}
    assert os.environ[DEBUG_VARIABLE] == "0"
    assert vars(parser().parse_args(["--debug"])) == {"count": 1}
    assert os.environ[DEBUG_VARIABLE] == "1"


def test_help_shows_the_text_as_it_is_and_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    printed = capsys.readouterr().out
    assert "Example:\n    python scripts/x.py\n" in printed and "--debug" in printed
    with pytest.raises(UserError, match="invalid int value: 'two'; see --help"):
        parser().parse_args(["--count", "two"])


def test_overrides_are_pairs_of_words() -> None:
    words = ["--dataset_dir", "/data", "--network_def#levels=6", "--shift", "-1", "--augment", "{'a': 1}"]
    found = {"dataset_dir": "/data", "network_def#levels": "6", "shift": "-1", "augment": "{'a': 1}"}
    assert overrides_of(words) == found
    assert overrides_of([]) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "'data' belongs to no option"),
        (["--image_size", "64", "65"], "'65' belongs to no option"),
        (["--image_size"], "--image_size: needs a value"),
        (["--image_size", "--seed=2"], "--image_size: needs a value"),
        (["--resume", "true"], "the same command goes on"),
    ],
)
def test_words_that_make_no_pair_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        overrides_of(words)

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "-1"], "--count: -1 is not a whole number from 1 up"),
        (["--count", ""], "--count: is empty"),
        (["--name="], "--name: is empty"),
        (["--rate", "nan"], "--rate: nan is not a finite number"),
        (["--range", "0", "inf"], "--range: inf is not a finite number"),
        ([""], "is empty"),
        (["--image_size", "0"], "--image_size: 0 is not a whole number from 1 up; see --help"),
        (["--cpu_minutes", "-2"], "--cpu_minutes: -2.0 is not a number above 0"),
        (["--device", "cuda:77"], "--device: 'cuda:77' is not here"),
    ],
)
def test_values_that_no_argument_takes_are_named(words: list[str], message: str) -> None:
    made = parser()
    made.add_argument("--name")
    made.add_argument("--rate", type=float, default=0.5)
    made.add_argument("--offset", type=int, default=-1)
    made.add_argument("--range", type=float, nargs=2)
    made.add_argument("--image_size", type=int)
    made.add_argument("--cpu_minutes", type=float)
    made.add_argument("--hu_offset", type=float)
    made.add_argument("--device", default="cpu")
    with pytest.raises(UserError, match=message):
        made.parse_args(words)
    given = made.parse_args(
        ["--offset", "-1000", "--range", "-160", "240", "--name", "a b=#ü", "--hu_offset", "-1024"]
    )
    assert (given.offset, given.range, given.name) == (-1000, [-160.0, 240.0], "a b=#ü")
    assert given.hu_offset == -1024


def test_an_override_without_text_is_refused() -> None:
    for words in (["--output_dir", ""], ["--output_dir="]):
        with pytest.raises(UserError, match="--output_dir: is empty"):
            overrides_of(words)

"""The command line of the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.tools.runs import Sweep
from scripts.sweep import parse


def test_values_and_overrides_are_told_apart() -> None:
    words = "patchgan_cardiac labels LV LV,Myo all --output_dir out --dataset_dir D --max_epochs=3"
    expected = ("patchgan_cardiac", "labels", ["LV", "LV,Myo", "all"], Path("out"))
    given = {"dataset_dir": "D", "max_epochs": "3"}
    assert parse(words.split()) == Sweep(*expected, config_files=[], overrides=given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("patchgan_cardiac labels --output_dir out", "required: VALUE; see --help"),
        ("patchgan_cardiac labels LV", "required: --output_dir; see --help"),
        ("patchgan_cardiac labels LV --output_dir out --labels RV", "--labels: set by the sweep"),
        ("patchgan_cardiac labels LV --output_dir out --resume true", "--resume: not an option here"),
    ],
)
def test_wrong_words_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(words.split())

"""The command line that makes composites."""

from __future__ import annotations

import pytest

from bundles.lung_two_stage.composition.compose import ComposeSettings
from common.errors import UserError
from scripts.synthesize import parse

NEEDED = "--nodules A --healthy_slices B --output C"


def test_options_become_settings() -> None:
    words = f"{NEEDED} --count 1000000 --format png --window -1000 200 --workers 2 --seed 5 --presence P"
    expected = ComposeSettings(
        *("A", "B", "C", "P"), count=1_000_000, file_format="png", window=(-1000, 200), seed=5, num_workers=2
    )
    assert parse(words.split()) == expected
    assert parse(NEEDED.split()) == ComposeSettings("A", "B", "C")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nodules A --healthy_slices B", "required: --output"),
        (f"{NEEDED} --count many", "count many: give a whole number of at least 1"),
        (f"{NEEDED} --format png --window 1 2 3", "--window 1 2 3: give one name or two numbers"),
        (f"{NEEDED} --colour red", "unrecognized arguments: --colour red; see --help"),
    ],
)
def test_wrong_words_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(words.split())

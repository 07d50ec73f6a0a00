"""Overrides on the command lines of the scripts."""

from __future__ import annotations

import pytest

from common.errors import UserError
from common.tuning.arguments import overrides_of


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

"""Settings as they come from configs and command lines."""

from __future__ import annotations

from typing import Any

import pytest

from bundles.lung_two_stage.composition.settings import Settings
from common.errors import UserError


def settings(**more: Any) -> Settings:
    return Settings("nodules", "normals", "out", **more)


def test_digits_are_numbers_and_a_list_is_a_window() -> None:
    asked = settings(count="12", groups="7", file_format="png", window=[-1000, 200])
    assert (asked.count, asked.groups) == (12, 7) and asked.window == (-1000, 200)
    assert asked == settings(count=12, groups=7, file_format="png", window=(-1000, 200)) and hash(asked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"count": 0}, "count 0: give a whole number of at least 1"),
        ({"per_shard": "many"}, "per_shard many: give a whole number"),
        ({"nodules_per_group": 99}, "nodules_per_group 99: give at most 16"),
        ({"file_format": "jpg"}, "format 'jpg' is unknown"),
        ({"file_format": "png", "window": "lnug"}, "window 'lnug' is unknown"),
        ({"window": "lung"}, "leave the window out"),
    ],
)
def test_wrong_ones_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**more)

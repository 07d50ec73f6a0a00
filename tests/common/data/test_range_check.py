"""One warning for sets that are nearly one gray, or inverted; none for what real sets look like."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.datasets import warn_of_gray_values


class Slices:
    """Slices of a chest in [-1, 1]: air around a body, lungs in it."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, count: int = 100) -> None:
        self.scale, self.shift, self.count = scale, shift, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.full((1, 32, 32), -1.0)
        image[0, 3:29, 2:30], image[0, 8:22, 6:14], image[0, 22:26, 14:18] = 0.48, -0.8, 0.9
        return {"image": image * self.scale + self.shift + 0.001 * index}


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (Slices(), ""),
        (Slices(count=1), ""),
        (Slices(count=0), ""),
        (Slices(scale=0.06, shift=-0.93), r"use \d+% of the range .*--window.*--hu_offset.*--source_range"),
        (Slices(scale=0.2, shift=0.5), "of the range"),
        (Slices(scale=-1), "white around a dark middle, as if inverted.*--source_range"),
    ],
)
def test_one_line_or_none(slices: Slices, says: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_gray_values(slices, Path("set"))
    messages = [record.getMessage() for record in caplog.records]
    if not says:
        assert messages == []
        return
    (message,) = messages
    assert message.startswith("set: its images ") and "\n" not in message and re.search(says, message)

"""The commands of a README's first block."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def quick_start(readme: Path) -> list[list[str]]:
    """The words after ``python`` of each command in the first block of a README."""
    block = re.search(r"^```\w*\n(.*?)^```", readme.read_text(), re.M | re.S)
    assert block, f"{readme}: no commands"
    lines = block[1].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in commands if words[:1] == ["python"]]

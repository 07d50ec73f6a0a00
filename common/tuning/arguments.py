"""Command lines of the scripts that start trainings: known options, and overrides for the training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from common.arguments import Parser as PlainParser
from common.errors import UserError

OWN = {"resume": "the same command goes on", "run_id": "training is what runs"}
KEY = re.compile(r"--([A-Za-z_][\w#.:]*)")


class Parser(PlainParser):
    """A script's command line whose other words are for the trainings, see `overrides_of`.

    Args:
        description: the script's docstring.
        receiver: who gets the overrides, for the help: "every trial".
    """

    def __init__(self, description: str | None, receiver: str) -> None:
        rest = f"Any other --KEY VALUE goes to {receiver}, e.g. --dataset_dir, --image_size, --device."
        super().__init__(description, epilog=rest)


def overrides_of(words: Sequence[str]) -> dict[str, Any]:
    """``--key value`` and ``--key=value`` words as a mapping.

    Raises:
        UserError: a word belongs to no key, a key has no value, or it is a setting of the script's own.
    """
    found: dict[str, Any] = {}
    waiting = list(words)
    while waiting:
        key, equals, value = waiting.pop(0).partition("=")
        match = KEY.fullmatch(key)
        if match is None:
            raise UserError(f"'{key}{equals}{value}' belongs to no option; write --key value, see --help")
        if not equals and (not waiting or KEY.match(waiting[0])):
            raise UserError(f"{key}: needs a value")
        if match.group(1) in OWN:
            raise UserError(f"{key}: not an option here; {OWN[match.group(1)]}")
        found[match.group(1)] = value if equals else waiting.pop(0)
    return found

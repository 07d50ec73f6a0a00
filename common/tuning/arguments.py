"""Command lines of the scripts that start trainings: known options, and overrides for the training."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from common.errors import UserError

OWN = {"resume": "the same command goes on", "run_id": "training is what runs"}
KEY = re.compile(r"--([A-Za-z_][\w#.:]*)")


class Parser(argparse.ArgumentParser):
    """Shows a script's own text as its help, and says what is wrong in one line.

    Args:
        description: the script's docstring.
        receiver: who gets the overrides, for the help: "every trial".
    """

    def __init__(self, description: str | None, receiver: str) -> None:
        super().__init__(
            description=description,
            epilog=f"Any other --KEY VALUE goes to {receiver}, e.g. --dataset_dir, --image_size, --device.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Instead of usage and exit."""
        raise UserError(f"{message}; see --help")


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

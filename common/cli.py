"""Command lines of the scripts: docstrings as help, errors of one line, tracebacks with ``--debug``."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from common.errors import DEBUG_VARIABLE, UserError


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with ``--debug``, which is acted on here and is no argument of the script's.

    Empty values, numbers that are not finite and negative counts are refused for all arguments alike.

    Args:
        description: the script's docstring, with an example.

    Example:
        >>> parser = Parser("Draws images.")
        >>> _ = parser.add_argument("--count", type=int, default=8)
        >>> parser.parse_args(["--count", "3"]).count
        3
    """

    def __init__(self, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--debug", action="store_true", help=f"show tracebacks (as {DEBUG_VARIABLE}=1 does)"
        )

    def error(self, message: str) -> NoReturn:
        """Raises the message instead of printing the usage and exiting.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; see --help")

    def parse_known_args(  # type: ignore[override]  # the stubs' overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As `argparse` does; turns tracebacks on where asked, also for what it refuses."""
        words = list(sys.argv[1:] if args is None else args)
        if "--debug" in words:
            os.environ[DEBUG_VARIABLE] = "1"
        for option, word in zip(["", *words], words, strict=False):
            if not word or re.fullmatch(r"--\w+=", word):
                self.error(f"{(word or option).removesuffix('=')}: is empty; give a value, or leave it out")
        known, rest = super().parse_known_args(words, namespace)
        for action in self._actions:
            self._check_number(action, getattr(known, action.dest, None))
        known.__dict__.pop("debug", None)
        return known, rest

    def _check_number(self, action: argparse.Action, value: Any) -> None:
        """Refuses numbers that are not finite, and those that a setting of the name does not take."""
        name, default = "/".join(action.option_strings) or action.dest, action.default
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                self.error(f"{name}: {number} is not a finite number")
        if action.dest == "device" or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            from common.settings import settled_value  # with torch and MONAI, which --help does without

            try:
                settled_value(action.dest, value, [] if default is None else [default])
            except UserError as error:
                self.error(str(error).replace(f"config key '{action.dest}'", name))


OWN = {"resume": "the same command goes on", "run_id": "training is what runs"}
KEY = re.compile(r"--([A-Za-z_][\w#.:]*)")


class OverridesParser(Parser):
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
    overrides: dict[str, Any] = {}
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
        overrides[match.group(1)] = value if equals else waiting.pop(0)
        if not overrides[match.group(1)]:
            raise UserError(f"{key}: is empty; give a value, or leave it out")
    return overrides

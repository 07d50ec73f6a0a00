"""Command lines of the scripts: their own text as help, one line for what is wrong, tracebacks on demand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from common.errors import DEBUG_VARIABLE, UserError


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with ``--debug``, which is acted on here and is no argument of the script's.

    Args:
        description: the script's docstring, with an example.
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
        """Instead of usage and exit.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; see --help")

    def parse_known_args(  # type: ignore[override]  # the stubs' overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As `argparse` does; turns tracebacks on where asked, also for what it refuses."""
        if "--debug" in (sys.argv[1:] if args is None else args):
            os.environ[DEBUG_VARIABLE] = "1"
        known, rest = super().parse_known_args(args, namespace)
        known.__dict__.pop("debug", None)
        return known, rest

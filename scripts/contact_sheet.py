"""Draws one picture of what the shipped weights of all bundles draw: no training, no data, under a minute.

Conditions are masks and labels of phantoms. Bundles without weights are left out, with one line each.

Example:
    python scripts/contact_sheet.py --output samples/contact_sheet.png
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import Parser
from common.errors import check_int, install_hook
from common.paths import bundle_root
from common.tools.contact_sheet import write_contact_sheet
from common.tools.package import bundle_names


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    default = Path("samples", "contact_sheet.png")
    parser.add_argument("--output", type=Path, default=default, metavar="PNG", help=f"default {default}")
    parser.add_argument("--count", default=8, metavar="N", help="pictures in a row (8)")
    parser.add_argument("--seed", default=0, help="of the noise (0)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("common").setLevel(logging.INFO)
    count, seed = check_int("count", options.count, 1), check_int("seed", options.seed)
    print(
        write_contact_sheet([Path(bundle_root(name)) for name in bundle_names()], options.output, count, seed)
    )


if __name__ == "__main__":
    install_hook()
    main()

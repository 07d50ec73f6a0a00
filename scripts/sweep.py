"""Trains and evaluates a bundle once for every value of a setting, and tabulates the metrics.

The same command continues a stopped sweep: finished runs are kept, an interrupted one is resumed.

Example (the eight conditions of patchgan_cardiac's paper):
    python scripts/sweep.py patchgan_cardiac labels LV RV LA RA Myo Ao PA all --output_dir conditions
    python scripts/sweep.py patchgan_cardiac labels LV all --dataset_dir DATA --max_epochs 40 --output_dir OUT
"""

from __future__ import annotations

import logging
from pathlib import Path

from common.cli import OverridesParser, overrides_of
from common.errors import install_hook
from common.tools.runs import Sweep, run_sweep


def parse(arguments: list[str] | None = None) -> Sweep:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = OverridesParser(__doc__, receiver="every training")
    add = parser.add_argument
    add("name", metavar="NAME", help="the bundle, e.g. patchgan_cardiac")
    add("key", metavar="KEY", help="the setting that is varied, e.g. labels")
    add("values", metavar="VALUE", nargs="+", help="one run each")
    add("--output_dir", type=Path, required=True, help="folder of the sweep")
    add("--config_file", type=Path, nargs="+", default=[], help="training config, overlays after it")
    known, rest = parser.parse_known_args(arguments)
    folder, overrides = known.output_dir, overrides_of(rest)
    return Sweep(known.name, known.key, known.values, folder, known.config_file, overrides)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    sweep = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    run_sweep(sweep)


if __name__ == "__main__":
    install_hook()
    main()

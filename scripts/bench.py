"""Measures speed and memory against plain baselines; prints a table and writes bench.json.

Example:
    python scripts/bench.py --only fid_accumulator_memory
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from common.cli import Parser
from common.errors import UserError, install_hook
from common.files import write_json
from tests.bench.harness import BENCHMARKS, NotMeasurable, Result

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="one benchmark; may be repeated")
    parser.add_argument("--output", type=Path, default=ROOT / "bench.json", help="default bench.json here")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    return parser.parse_args(arguments)


def load_benchmarks() -> None:
    """Imports every module of tests/bench, which registers its benchmarks."""
    for file in sorted((ROOT / "tests" / "bench").glob("*.py")):
        importlib.import_module(f"tests.bench.{file.stem}")


def chosen(names: list[str] | None) -> list[str]:
    """Returns the names to run, all by default.

    Raises:
        UserError: no such benchmark.
    """
    unknown = sorted(set(names or ()) - set(BENCHMARKS))
    if unknown:
        raise UserError(f"no benchmark called {unknown[0]}; choose from {', '.join(sorted(BENCHMARKS))}")
    return names or sorted(BENCHMARKS)


def row(result: Result) -> str:
    """Returns one line of the table."""
    verdict = "met" if result.ratio >= result.goal else "MISSED"
    return (
        f"{result.name:<26}{result.ratio:>8.2f}x{result.goal:>8.2f}x  {verdict:<8}"
        f"{result.ours:>10.4g}{result.baseline:>11.4g} {result.unit:<10}{result.n:>3}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = parse(arguments)
    load_benchmarks()
    names = chosen(options.only)
    if options.list:
        print("\n".join(names))
        return
    print(f"{'name':<26}{'ratio':>9}{'goal':>9}  {'':<8}{'ours':>10}{'baseline':>11} {'unit':<10}{'n':>3}")
    results = []
    for name in tqdm(names, "measuring", unit="benchmark", disable=None):
        try:
            results.append(BENCHMARKS[name]())
            tqdm.write(row(results[-1]))
        except NotMeasurable as reason:
            tqdm.write(f"{name:<26}not measurable here: {reason}")
    write_json(options.output, [asdict(result) for result in results])
    print(f"written to {options.output}")


if __name__ == "__main__":
    install_hook()
    main()

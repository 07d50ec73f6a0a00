"""Shows which feature extractors see anatomy: scores real slices that are blurred, shuffled and so on.

Each extractor's KID of real slices against distorted ones of other patients is compared with the KID of
real slices against real ones. If slices upside down, with shuffled quadrants or the mean image score like
real ones, the extractor is blind to layout and its metrics say nothing about anatomy.

Example:
    python scripts/distortion_ladder.py --real DATA --output ladder.png
    python scripts/distortion_ladder.py --real DATA --extractor gridvgg,lite0,inception --output ladder.png \
        --json ladder.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import Parser
from common.data.intensity import WINDOWS, parse_window
from common.errors import UserError, install_hook
from common.files import write_json
from common.metrics.distortion_ladder import REPEATS, choose_evenly, save_ladder_figure, score_ladder
from common.metrics.features import extractor_by_name
from common.trust.image_sets import read_set
from common.trust.readers import ReadingSettings


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--real", type=Path, required=True, metavar="DIR", help="real images of several patients")
    add("--output", type=Path, required=True, metavar="PNG", help="the figure")
    add("--json", type=Path, metavar="FILE", help="the scores as JSON")
    add("--extractor", default="gridvgg,randvgg", metavar="NAMES", help="comma-separated (gridvgg,randvgg)")
    add("--image_size", type=int, default=128, metavar="N", help="side of the slices in pixels (128)")
    windows = f"for images in HU: one of {', '.join(WINDOWS)}, or two numbers (lung)"
    add("--window", nargs="+", default=["lung"], metavar="HU", help=windows)
    add("--images", type=int, default=150, metavar="N", help="largest number, from all patients alike (150)")
    add("--repeats", type=int, default=REPEATS, metavar="N", help=f"number of splits by patient ({REPEATS})")
    add("--patient_pattern", metavar="REGEX", help="patient of a file: group 1 of the match in its name")
    add("--seed", type=int, default=0, help="seed of the splits (0)")
    add("--example", type=int, default=0, metavar="N", help="index of the image that is shown (0)")
    add("--source", default="", help="a line at the foot of the figure")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = parse(arguments)
    if options.images < 1 or options.repeats < 1:
        raise UserError("--images and --repeats: give numbers of 1 or more")
    extractors = [extractor_by_name(name.strip()) for name in options.extractor.split(",")]
    size, window, pattern = options.image_size, parse_window(options.window), options.patient_pattern
    settings = ReadingSettings(size, window, fit="pad", kind="images", patient_pattern=pattern)
    real = read_set(options.real, settings)
    real = real.select(choose_evenly(real.patients, options.images))
    if not 0 <= options.example < len(real):
        raise UserError(f"--example {options.example}: give one of 0 to {len(real) - 1}")
    results = []
    for extractor in extractors:
        result = score_ladder(real.images, real.patients, extractor, options.repeats, options.seed)
        results.append(result)
        label = "sees layout" if result.sees_layout else "blind to layout"
        print(f"{result.extractor}: {label}; real against real {result.real:.4f}, at most {result.bound:.4f}")
        for name, score in result.scores.items():
            print(f"  {name}: {score:.4f}{'' if score > result.bound else ' (as real)'}")
        for family in result.disordered():
            print(f"  {family}: a stronger distortion does not score above a weaker one")
    save_ladder_figure(options.output, real.images, results, options.example, source=options.source)
    if options.json is not None:
        facts = {"images": len(real), "patients": len(set(real.patients)), "image_size": size}
        write_json(options.json, {**facts, "extractors": [result.as_json() for result in results]})
    print(f"figure in {options.output}")


if __name__ == "__main__":
    install_hook()
    main()

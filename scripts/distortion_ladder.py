"""Which extractor sees anatomy? Real slices are blurred, brightened, shuffled ... and scored: a picture.

Each extractor's KID of real slices against distorted ones of other patients is set beside what real slices
score against real ones. An extractor that takes slices upside down, with shuffled quadrants or their mean
image for real ones is blind to layout: its metrics say nothing of anatomy.

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
from common.metrics.distortion_ladder import REPEATS, climb, evenly, ladder_picture
from common.metrics.features import extractor_by_name
from common.trust.readers import ReadingSettings, read_set

DEFAULT = "gridvgg,randvgg"
AT_MOST = 150  # images: the ladder looks at each 15 times an extractor


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: something in it is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--real", type=Path, required=True, metavar="DIR", help="real images of several patients")
    add("--output", type=Path, required=True, metavar="PNG", help="the picture")
    add("--json", type=Path, metavar="FILE", help="the numbers")
    add("--extractor", default=DEFAULT, metavar="NAMES", help=f"with commas between them ({DEFAULT})")
    add("--image_size", type=int, default=128, metavar="N", help="side of the slices in pixels (128)")
    windows = f"of images in HU: one of {', '.join(WINDOWS)}, or two numbers (lung)"
    add("--window", nargs="+", default=["lung"], metavar="HU", help=windows)
    add("--images", type=int, default=AT_MOST, metavar="N", help=f"at most, of all patients ({AT_MOST})")
    add("--repeats", type=int, default=REPEATS, metavar="N", help=f"splits by patient ({REPEATS})")
    add("--patient_pattern", metavar="REGEX", help="whose a file is: group 1 of its match in the name")
    add("--seed", type=int, default=0, help="of the splits (0)")
    add("--example", type=int, default=0, metavar="N", help="which of the images is shown (0)")
    add("--source", default="", help="a line at the foot of the picture")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises `UserError` for what the user can put right."""
    options = parse(arguments)
    if options.images < 1 or options.repeats < 1:
        raise UserError("--images and --repeats: give numbers of 1 or more")
    extractors = [extractor_by_name(name.strip()) for name in options.extractor.split(",")]
    settings = ReadingSettings(
        options.image_size,
        parse_window(options.window),
        fit="pad",
        kind="images",
        patient_pattern=options.patient_pattern,
    )
    real = read_set(options.real, settings)
    real = real.chosen(evenly(real.patients, options.images))
    count = len(real)
    if not 0 <= options.example < count:
        raise UserError(f"--example {options.example}: give one of 0 to {count - 1}")
    climbs = []
    for extractor in extractors:
        found = climb(real.images, real.patients, extractor, options.repeats, options.seed)
        climbs.append(found)
        label = "sees layout" if found.sees_layout else "blind to layout"
        print(f"{found.extractor}: {label}; real against real {found.real:.4f}, at most {found.bound:.4f}")
        for name, score in found.scores.items():
            print(f"  {name}: {score:.4f}{'' if score > found.bound else ' (as real)'}")
        for family in found.disordered():
            print(f"  {family}: a stronger distortion does not score above a weaker one")
    ladder_picture(options.output, real.images, climbs, options.example, source=options.source)
    if options.json is not None:
        facts = {"images": count, "patients": len(set(real.patients)), "image_size": options.image_size}
        write_json(options.json, {**facts, "extractors": [found.as_json() for found in climbs]})
    print(f"picture in {options.output}")


if __name__ == "__main__":
    install_hook()
    main()

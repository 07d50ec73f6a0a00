"""Downloads public data sets and merges them into one set of image and mask pairs.

Example:
    python scripts/prepare_data.py medseg_100 covid19_ct_seg --root ~/data --output ~/data/pairs
    python -m monai.bundle run training --config_file bundles/pix2pix_covid/configs/train.yaml \
        --dataset_dir ~/data/pairs
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import Parser
from common.data.hu_calibration import check_source_range
from common.data.intensity import METHODS, WINDOWS, parse_window
from common.data.mask_values import check_ignored
from common.data.merge_datasets import MergeSettings, harmonise
from common.data.public_datasets import (
    Dataset,
    LocalDataset,
    find_dataset,
    format_registry,
    load_registry,
    obtain,
)
from common.data.slice_geometry import FITS
from common.errors import install_hook
from common.files import check_absent


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="sets to prepare; several are merged")
    add("--list", action="store_true", help="print all known sets and stop")
    add("--root", type=Path, help="folder of the sets, each in ROOT/NAME; or one unpacked set itself")
    add("--output", type=Path, help="folder to write, default ROOT/prepared-NAME...; must not exist")
    add("--image_size", type=int, default=256, help="pixels along both sides (default 256)")
    add("--fit", default="pad", choices=FITS, help="how slices become square (default pad)")
    windows = f"one of {', '.join(WINDOWS)}, or two numbers in HU (default lung)"
    add("--window", nargs="+", default=["lung"], help=windows)
    add("--hu_offset", type=float, help="added to CT volumes that are not in HU, e.g. -1024")
    black = "black and white of CT images that are not in HU, e.g. 0 4095"
    add("--source_range", type=float, nargs=2, metavar=("BLACK", "WHITE"), help=black)
    add("--mask_threshold", type=float, help="least value of soft masks that is segmented, e.g. 0.5")
    add("--ignore_value", type=int, nargs="+", metavar="VALUE", help="mask values that mean nothing")
    add("--standardise", default="none", choices=METHODS, help="intensity standard for slices not in HU")
    add("--foreground", type=int, nargs="+", metavar="VALUE", help="mask values that become 1")
    add("--patient_pattern", metavar="REGEX", help="pattern of file names whose one group is the patient")
    add("--keep_empty", action="store_true", help="keep slices where nothing is segmented")
    add("--seed", type=int, default=0, help="seed of the split (default 0)")
    add("--download_only", action="store_true", help="stop after download and check")
    options = parser.parse_args(arguments)
    if not options.list and not (options.names and options.root):
        parser.error("give at least one NAME and --root, or --list")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; raises `UserError` for what the user can put right."""
    options = parse(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    registry = load_registry()
    if options.list:
        print(format_registry(registry))
        return
    settings = MergeSettings(
        options.image_size,
        parse_window(options.window),
        options.standardise,
        options.keep_empty,
        options.seed,
        hu_offset=options.hu_offset,
        source_range=None if options.source_range is None else check_source_range(options.source_range),
        mask_threshold=options.mask_threshold,
        ignore_value=check_ignored(options.ignore_value),
        fit=options.fit,
    )
    datasets = [find_dataset(name, registry) for name in dict.fromkeys(options.names)]
    output = options.output or options.root / ("prepared-" + "-".join(dataset.name for dataset in datasets))
    check_absent(output)
    sources = [source(dataset, options, registry) for dataset in datasets]
    if options.download_only:
        return
    counts = harmonise(sources, output, settings)
    print(f"{output}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def source(dataset: Dataset, options: argparse.Namespace, registry: dict[str, Dataset]) -> LocalDataset:
    """Returns a set on disk; downloads it or explains how to get it if it is missing."""
    # A root that holds folders named after sets is the folder of all sets, not one of them.
    alone = len(set(options.names)) == 1 and not any((options.root / name).is_dir() for name in registry)
    folder = obtain(dataset, options.root, root_is_set=alone)
    foreground = tuple(options.foreground) if options.foreground else None
    return LocalDataset(dataset, folder, foreground, options.patient_pattern)


if __name__ == "__main__":
    install_hook()
    main()

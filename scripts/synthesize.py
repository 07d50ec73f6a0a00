"""Composes lung CT slices with nodules and their masks: nodule groups x healthy slices, in tar shards.

Of all combinations those whose nodules lie farthest from the edge of the lung are kept. The same command
continues a set that was stopped; every file comes out the same. The shards have WebDataset's layout:
NUMBER.image.npy (int16 HU), NUMBER.mask.npy (uint8), NUMBER.json (what it is made of).

Example (the paper's million: 5000 groups x 500 healthy slices, 2 in 5 kept):
    python scripts/synthesize.py --nodules work/generated/nodules \
        --healthy_slices work/generated/healthy_slices --presence work/extraction/presence.npz \
        --output work/composites --count 1000000 --workers 8
    python -m torch.distributed.run --standalone --nproc_per_node=2 scripts/synthesize.py ...
"""

from __future__ import annotations

from bundles.lung_two_stage.composition.compose import ComposeSettings
from bundles.lung_two_stage.composition.shards import FORMATS
from common.cli import Parser
from common.errors import UserError, install_hook


def parse(arguments: list[str] | None = None) -> ComposeSettings:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--nodules", dest="nodules_dir", metavar="DIR", required=True, help="bank of nodules")
    names = ("--healthy_slices", "--normals")  # the second as before
    add(
        *names, dest="healthy_slices_dir", metavar="DIR", required=True, help="bank of slices without nodules"
    )
    add("--output", "--output_dir", dest="output_dir", metavar="DIR", required=True, help="folder of the set")
    add(
        "--presence", dest="presence_file", metavar="FILE", help="where nodules lie (default: anywhere alike)"
    )
    add(
        "--categories",
        dest="categories_file",
        metavar="FILE",
        help="JSON with the mask values' names, in order",
    )
    add("--count", help="composites to keep (default 40%% of the combinations, as in the paper)")
    add("--groups", default=5000, help="nodule groups (default 5000)")
    add("--nodules_per_group", default=3, metavar="MOST", help="1 to MOST nodules in a group (default 3)")
    add("--attempts", default=50, help="draws for a nodule's place until it is given up (default 50)")
    add("--per_shard", default=1000, help="composites in a shard (default 1000)")
    add("--format", dest="file_format", default="npy", help=f"one of {', '.join(FORMATS)} (default npy)")
    add("--window", nargs="+", help="of the PNGs: a name or two numbers in HU (png: lung, png16: wide)")
    add("--workers", "--num_workers", dest="num_workers", default=0, help="processes (default: this one)")
    add("--seed", default=0, help="of all draws (default 0)")
    options = parser.parse_args(arguments)
    options.window = _window(options.window)
    return ComposeSettings(**vars(options))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    settings = parse(arguments)
    # Not above: the workers import this file too and would wait for torch, which they do not use.
    from bundles.lung_two_stage.composition.compose import compose

    compose(settings)


def _window(words: list[str] | None) -> str | tuple[float, float] | None:
    if words is None:
        return None
    if len(words) == 1:
        return words[0]
    try:
        lower, upper = (float(word) for word in words)
    except ValueError as error:
        raise UserError(f"--window {' '.join(words)}: give one name or two numbers in HU") from error
    return lower, upper


if __name__ == "__main__":
    install_hook()
    main()

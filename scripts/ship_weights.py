"""Puts a training's model into bundles/NAME/models as weights to ship: float16, facts, model card.

Writes FILE.pt, FILE.json without patients' names, and the section of FILE in README.md: what follows from
the run's files is filled in, with the metrics of RUN/eval, and the text below it is yours. Data, terms and
command are remembered for the next call. Weights that half precision changes by more than 1/255, that are
larger than 25 MB, or whose images close the release gate are refused.

Example:
    python scripts/ship_weights.py pix2pix_covid --run bundles/pix2pix_covid/run --trust trust.json \
        --data "COVID-SemiSeg, pseudo-labelled slices" --terms "research only, non-commercial" \
        --command "training --config_file bundles/pix2pix_covid/configs/train.yaml --max_epochs 260"
    python scripts/ship_weights.py lung_two_stage --run bundles/lung_two_stage/work/enhancer --name enhancer
    python scripts/ship_weights.py pix2pix_covid --run RUN --network G
"""

from __future__ import annotations

from pathlib import Path

from common.cli import Parser
from common.errors import install_hook
from common.tools.ship_weights import ShipSettings, ship

TEXTS = {
    "data": "what it learned from",
    "terms": "the terms that follow from the data",
    "command": "that trained it",
    "commit": "that trained it (this checkout's)",
}


def parse(arguments: list[str] | None = None) -> ShipSettings:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("bundle", metavar="NAME", help="the bundle, e.g. pix2pix_covid")
    add("--run", type=Path, required=True, metavar="DIR", help="output_dir of the training")
    add("--name", default="model", metavar="FILE", help="model (the main network), or e.g. enhancer")
    add("--network", help="ship its last weights, G or its moving average, not the best validated ones")
    add("--trust", type=Path, metavar="JSON", help="trust.json of a report on the model's images")
    add("--output", type=Path, metavar="DIR", help="default bundles/NAME/models")
    for name, meaning in TEXTS.items():
        add(f"--{name}", help=meaning)
    return ShipSettings(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    print(ship(parse(arguments)))


if __name__ == "__main__":
    install_hook()
    main()

"""Packs one bundle or all of them as zips for `python -m monai.bundle download`.

Each NAME_vVERSION.zip holds configs (YAML and JSON), documents, licence, the code it needs, and weights:
those that the bundle ships, or with --models those of a training. The same commit and weights give the same
bytes. Beside them: SHA256SUMS, models/model_info.json, and NAME_vVERSION/ with files above 25 MB, which the
zip only lists. MONAI sends an unpacked zip to the Hugging Face Hub: python -m monai.bundle push_to_hf_hub
--repo OWNER/NAME --name NAME --bundle_dir DIR --version VERSION

Example:
    python scripts/build_bundle.py all --output dist
    python scripts/build_bundle.py pix2pix_covid --output dist --url https://example.org/bundles
"""

from __future__ import annotations

import logging
from pathlib import Path

from common.cli import Parser
from common.errors import install_hook
from common.tools.package import BuildSettings, build


def parse(arguments: list[str] | None = None) -> BuildSettings:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("name", metavar="NAME", help="the bundle, e.g. pix2pix_covid, or all")
    add("--output", type=Path, default=Path("dist"), metavar="DIR", help="folder of the zips (default dist)")
    add("--models", type=Path, metavar="DIR", help="weights, e.g. bundles/NAME/run/models (default: shipped)")
    add("--url", help="where others will find DIR, e.g. https://example.org/bundles")
    return BuildSettings(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("common").setLevel(logging.INFO)
    for path in build(parse(arguments)):
        print(path)


if __name__ == "__main__":
    install_hook()
    main()

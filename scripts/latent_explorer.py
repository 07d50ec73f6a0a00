"""Writes the latent space of a bundle as one web page that opens from disk and needs no network.

The page shows real and generated images in an autoencoder's latent space, decodes any point that is clicked,
and has a plane of the generator's own latent space. Train generator and autoencoder first.

Example:
    python -m monai.bundle run training --config_file bundles/dcgan_covid/configs/train.yaml
    python -m monai.bundle run training --config_file bundles/dcgan_covid/configs/train_autoencoder.yaml
    python scripts/latent_explorer.py --bundle bundles/dcgan_covid --output explorer.html
    python scripts/latent_explorer.py --bundle bundles/dcgan_covid --output explorer.html \
        --dataset_dir DATA --output_dir RUN --num_samples 400 --plane_seeds 4,8,15

The page holds thumbnails of the real images and their files' names; --num_real 0 leaves them out.
"""

from __future__ import annotations

from pathlib import Path

from common.cli import OverridesParser, overrides_of
from common.errors import install_hook
from common.explorer.explorer import explore

OPTIONS = {
    "dataset_dir": "the real images, as in training; the phantoms by default",
    "output_dir": "of the trainings; BUNDLE/run by default",
    "ckpt_path": "the generator; by default the trained one in OUTPUT_DIR/models, or else the shipped one",
    "autoencoder": "the autoencoder, by default alike",
    "num_real": "real images at most (1000); 0 for none",
    "num_samples": "generated images (200)",
    "seed": "of the generated images (0)",
    "atlas": "samples on a side of the plane (24); 0 for no plane",
    "plane_seeds": "three seeds that span the plane (1,2,3)",
}


def parse(arguments: list[str] | None = None) -> tuple[Path, dict[str, str]]:
    """Parses the command line: the bundle's folder, and settings of its ``configs/explore.yaml``.

    Raises:
        UserError: an argument is wrong.
    """
    parser = OverridesParser(__doc__, receiver="the bundle's configs/explore.yaml")
    parser.add_argument("--bundle", type=Path, required=True, help="its folder, e.g. bundles/dcgan_covid")
    parser.add_argument("--output", required=True, metavar="HTML", help="the file")
    for name, meaning in OPTIONS.items():
        parser.add_argument(f"--{name}", help=meaning)
    known, rest = parser.parse_known_args(arguments)
    given = {name: value for name, value in vars(known).items() if name != "bundle" and value is not None}
    return known.bundle, {**given, **overrides_of(rest)}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    explore(*parse(arguments))


if __name__ == "__main__":
    install_hook()
    main()

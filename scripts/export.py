"""Exports a bundle's trained generator as TorchScript or ONNX and checks its images against PyTorch's.

The file takes any batch size. ONNX needs the extra `export`: pip install onnx onnxscript onnxruntime.

Example:
    python scripts/export.py pix2pix_covid --format torchscript
    python scripts/export.py pix2pix_covid --format onnx --ckpt_path RUN/models/model.pt --output model.onnx
"""

from __future__ import annotations

import logging
from pathlib import Path

from common.cli import Parser
from common.errors import install_hook
from common.tools.export import SUFFIXES, ExportSettings, export


def parse(arguments: list[str] | None = None) -> ExportSettings:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    add = parser.add_argument
    add("name", metavar="NAME", help="the bundle, e.g. pix2pix_covid")
    add("--format", choices=list(SUFFIXES), required=True, help="kind of file")
    add("--ckpt_path", type=Path, metavar="FILE", help="weights (default: those of inference)")
    add("--output", type=Path, metavar="FILE", help="default model.ts or .onnx in bundles/NAME/run/models")
    return ExportSettings(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    settings = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("common").setLevel(logging.INFO)
    for name in ("monai.bundle.scripts", "torch.onnx"):  # they log each setting
        logging.getLogger(name).setLevel(logging.ERROR)
    export(settings)


if __name__ == "__main__":
    install_hook()
    main()

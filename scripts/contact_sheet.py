"""Draws one picture of what the shipped weights of all bundles draw: no training, no data, under a minute.

Conditions are masks and labels of phantoms; for models of cardiac MR in short axis, rings and crescents.
Bundles without weights are left out, with one line each.

Example:
    python scripts/contact_sheet.py --output samples/contact_sheet.png
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import default_collate

from common.cli import Parser
from common.data.phantoms.writing import ensure_phantoms
from common.data.transforms import preprocessing_of_model
from common.errors import UserError, check_int, install_hook
from common.files import atomic_write, read_json
from common.inference.checkpoint import load_weights, model_info, network_for
from common.inference.datasets import LabelSlices, MaskSlices, find_sources
from common.inference.prepare_batch import ConditionToImage
from common.inference.sampling import draw_images, latents
from common.paths import METADATA, bundle_root
from common.provenance import Provenance
from common.rng import make_rng
from common.tools.package import bundle_names
from common.visualization import label_picture, panel_rows, sheet, tiled, unit_range

logger = logging.getLogger(__name__)
SIDE = 128
PATIENTS = 4
"""Phantoms whose masks and labels are drawn from."""
LARGER = 3
"""Conditions are taken from this part of the slices: the third with the largest areas."""
FILES = ("model.pt", "healthy_slices.pt")
"""Generators: a bundle's main network, and lung_two_stage's second one."""
SHORT_AXIS = {"LV", "RV", "Myo"}
"""Structures of models whose conditions are `short_axis_labels`; phantoms lie as in a CT, cut axially."""
Row = tuple[str, Tensor]
"""Name and pictures (N, 1 or 3, SIDE, SIDE) in [0, 1]."""


def write_contact_sheet(
    bundles: Sequence[Path], output: str | os.PathLike[str], count: int = 8, seed: int = 0
) -> Path:
    """Writes one PNG with rows of what the shipped weights of each bundle draw, below the conditions if any.

    The conditions are masks and labels of phantoms, which are made beside ``output``, or for models of
    cardiac MR `short_axis_labels`. A bundle without
    weights is left out, and one line says so.

    Args:
        bundles: their folders.
        count: pictures in a row.
        seed: of the noise.
    Raises:
        UserError: no bundle has weights.
    """
    rows: list[Row] = []
    for bundle in bundles:
        files = [bundle / "models" / name for name in FILES if (bundle / "models" / name).is_file()]
        if not files:
            logger.info(f"{bundle.name}: left out, it ships no weights yet")
        for weights in files:
            rows += _rows(bundle, weights, Path(output).parent / "phantoms", count, seed)
    if not rows:
        raise UserError(f"{output}: not written, no bundle ships weights; train one with make demo")
    columns = [
        torch.stack([_of_side(picture[n].expand(3, -1, -1)) for _, picture in rows]) for n in range(count)
    ]
    picture = sheet(tiled(columns), [""] * count, [name for name, _ in rows])
    with atomic_write(output) as temporary:
        picture.save(temporary, format="PNG", pnginfo=Provenance(seed=seed).png())
    return Path(output)


def _rows(bundle: Path, weights: Path, phantoms: Path, count: int, seed: int) -> Iterator[Row]:
    network, info = load_weights(network_for(weights, nn.Identity()), weights, ""), model_info(weights)
    name = bundle.name if weights.name == FILES[0] else f"{bundle.name}, {weights.stem}"
    described = read_json(bundle / METADATA)["network_data_format"]["inputs"]["image"]
    if described["format"] == "latent":
        kinds = int(getattr(network, "classes", 0))
        classes = torch.arange(count) % kinds if kinds else None
        yield name, unit_range(draw_images(network, latents(seed, range(count), info["latent"]), classes))
        return
    if set(info.get("classes", ())) == SHORT_AXIS and info["spacing"]:
        batch = {"label": short_axis_labels(info["classes"], count, info["image_size"], info["spacing"])}
    else:
        slices = _conditions(ensure_phantoms(phantoms, PATIENTS), info)
        filled = [item for item in map(slices.__getitem__, range(len(slices))) if item["label"].any()]
        chosen = panel_rows(torch.stack([item["label"] for item in filled]), LARGER * count)[:count]
        batch = default_collate([filled[index] for index in chosen])
    condition, _, *more = ConditionToImage(network, seed)(batch)
    with torch.inference_mode():
        images = network(condition, *(more[0] if more else ()))
    yield f"{name}: condition", label_picture(condition)
    yield name, unit_range(images)


def short_axis_labels(classes: Sequence[str], count: int, size: int, spacing: float) -> Tensor:
    """Draws label maps of hearts cut across their long axis, from base to apex.

    The left ventricle is an ellipse within a wall of 9 to 11 mm (``Myo``), the right one a crescent to its
    lower left, as patients lie in upright pictures; sizes are those of adults.

    Args:
        classes: names of the classes 1, 2, ...: LV, RV and Myo.
        count: number of maps.
        size: side of a map in pixels.
        spacing: mm a pixel.
    Returns:
        Class indices (count, 1, size, size) float32, 0 background.

    Example:
        >>> maps = short_axis_labels(["LV", "RV", "Myo"], count=2, size=64, spacing=4.0)
        >>> maps.shape, sorted(maps.unique().tolist())
        (torch.Size([2, 1, 64, 64]), [0.0, 1.0, 2.0, 3.0])
    """
    rng = make_rng(0, "short axis")
    axis = (torch.arange(size) - (size - 1) / 2) * spacing  # mm
    maps = torch.zeros(count, 1, size, size)
    for n, heart in enumerate(maps):
        share = n / max(1, count - 1)  # 0 at the base, 1 at the apex
        outer, wall = 37 - 15 * share + rng.normal(0, 1.5), 10 + rng.normal(0, 0.7)
        shift, ratio, angle = rng.normal(0, 5, 2), rng.normal(1, 0.04), np.deg2rad(rng.uniform(50, 85))
        rows, columns = axis[:, None] - 5 + shift[0], axis[None] + shift[1]
        left = torch.hypot(rows / ratio, columns * ratio)
        down, aside = outer * np.sin(angle), outer * np.cos(angle)
        right = torch.hypot(rows - 0.85 * down, columns + 0.85 * aside) < outer * (0.95 - 0.45 * share)
        for name, inside in (("RV", right), ("Myo", left < outer), ("LV", left < outer - wall)):
            heart[0, inside] = classes.index(name) + 1.0
    return maps


def _conditions(phantoms: Path, info: dict[str, Any]) -> MaskSlices | LabelSlices:
    """Slices of the phantoms as the model takes them: lesion masks, or label maps of its structures."""
    if "label_set" not in info:
        own = preprocessing_of_model(info, ["image", "label"], info["image_size"], fit="stretch")
        return MaskSlices(phantoms / "masks", own)
    return LabelSlices(find_sources(input_dir=phantoms / "labels" / "heart"), info, label_map="default")


def _of_side(picture: Tensor) -> Tensor:
    """Returns a picture (C, H, W) as (C, SIDE, SIDE)."""
    return interpolate(picture[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Raises:
        UserError: an argument is wrong.
    """
    parser = Parser(__doc__)
    default = Path("samples", "contact_sheet.png")
    parser.add_argument("--output", type=Path, default=default, metavar="PNG", help=f"default {default}")
    parser.add_argument("--count", default=8, metavar="N", help="pictures in a row (8)")
    parser.add_argument("--seed", default=0, help="of the noise (0)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for name in ("common", __name__):
        logging.getLogger(name).setLevel(logging.INFO)
    count, seed = check_int("count", options.count, 1), check_int("seed", options.seed)
    print(
        write_contact_sheet([Path(bundle_root(name)) for name in bundle_names()], options.output, count, seed)
    )


if __name__ == "__main__":
    install_hook()
    main()

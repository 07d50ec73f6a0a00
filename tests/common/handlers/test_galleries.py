from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.handlers.galleries import save_galleries
from common.metrics.sheet import GAP, HEADER


def test_images_stand_in_rows_and_a_shorter_gallery_ends_in_white(tmp_path: Path) -> None:
    levels = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 48, 48)
    save_galleries(tmp_path / "g.png", {"real": levels, "generated": levels[:2]}, columns=2)
    with Image.open(tmp_path / "g.png") as picture:
        pixels = np.asarray(picture)
        assert picture.info["Description"].startswith("synthetic: a sheet with generated images")
    side = 2 * (48 + 2)  # enlarged twice, with a gap of two pixels
    gallery = 2 * side - 4 + GAP

    def tile(gallery_number: int, row: int, column: int) -> int:
        return int(pixels[HEADER + row * side + 9, GAP + gallery_number * gallery + column * side + 9])

    assert [tile(0, *divmod(number, 2)) for number in range(6)] == [0, 64, 128, 191, 255, 255]
    assert [tile(1, *divmod(number, 2)) for number in range(6)] == [0, 64, 255, 255, 255, 255]

"""What the shipped weights draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.bundles.pix2pix_covid.case import BUNDLE, CASE
from tests.bundles.runs import forked

WEIGHTS = BUNDLE / "models" / "model.pt"


def made_mask(path: Path) -> None:
    """A lesion low in the picture's left half."""
    mask = np.zeros((128, 128), np.uint8)
    mask[75:88, 30:48] = 255
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)


def test_they_draw_a_chest_around_the_mask(tmp_path: Path) -> None:
    made_mask(tmp_path / "masks" / "case1.png")
    drawn = []
    for name in ("one", "two"):
        given = {
            "ckpt_path": WEIGHTS,
            "input_dir": tmp_path / "masks",
            "output_dir": tmp_path / name,
            "device": "cpu",
        }
        run = forked(CASE.arguments("inference", "inference", **given), tmp_path / f"log_{name}")
        assert run.code == 0, run.err
        drawn.append((tmp_path / name / "case1.png").read_bytes())
    assert drawn[0] == drawn[1]
    slice_ = np.asarray(Image.open(tmp_path / "one" / "case1.png"), dtype=float)
    healthy, lesion, heart = slice_[45:60, 95:105], slice_[75:88, 30:48], slice_[40:60, 62:72]
    assert healthy.mean() + 40 < lesion.mean() < heart.mean()  # aerated lung, opacity, soft tissue
    assert slice_[:4, :4].max() < 30  # air around the body

"""The weights in the repository: they load, fit their facts, and draw the same lung twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.files import read_json
from tests.bundles.pix2pix_covid.case import BUNDLE, CASE
from tests.bundles.runs import forked

WEIGHTS = sorted((BUNDLE / "weights").glob("*.pt"))


def made_mask(path: Path) -> None:
    """A lesion low in the picture's left half."""
    mask = np.zeros((128, 128), np.uint8)
    mask[75:88, 30:48] = 255
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_weights_are_small_and_name_no_patients(weights: Path) -> None:
    state = torch.load(weights, map_location="cpu", weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert weights.stat().st_size < 25_000_000
    facts = read_json(weights.with_suffix(".json"))
    assert "splits" not in facts and facts["patients"]["test"] >= 1
    card = weights.with_suffix(".md").read_text()
    assert "non-commercial" in card and "CPU minutes" in card


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_weights_draw_a_chest_around_the_mask(weights: Path, tmp_path: Path) -> None:
    made_mask(tmp_path / "masks" / "case1.png")
    drawn = []
    for name in ("one", "two"):
        given = {
            "ckpt_path": weights,
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

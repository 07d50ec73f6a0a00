from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.metrics.ladder import LADDER, Climb
from common.metrics.ladder_picture import SEEN, UNSEEN, ladder_picture


def close_to(picture: np.ndarray, colour: str) -> int:
    """How many pixels have a colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(picture.astype(int) - wanted).max(-1) < 12).sum())


def test_one_row_a_distortion_one_column_an_extractor(tmp_path: Path) -> None:
    """Twice as many extractors, twice the width of bars; bars below the bound have a colour of their own."""
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    seeing = Climb("sees", 0.1, 0.5, {step.name: 5.0 for step in LADDER})
    blind = Climb("blind", 0.1, 0.5, {step.name: 0.2 for step in LADDER})
    pictures = {}
    for name, climbs in {"one": [seeing], "two": [seeing, blind]}.items():
        ladder_picture(tmp_path / f"{name}.png", images, climbs, 1, source="made")
        pictures[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
    assert pictures["two"].shape[1] - pictures["one"].shape[1] == 300
    assert pictures["one"].shape[0] > 70 * (len(LADDER) + 1)
    assert close_to(pictures["one"], UNSEEN) == 0 < 10_000 < close_to(pictures["one"], SEEN)
    assert close_to(pictures["two"], UNSEEN) > 10_000
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["one.png", "two.png"]

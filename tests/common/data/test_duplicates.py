from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import common.data.duplicates as duplicates
from common.data.duplicates import connected, near_duplicate_groups


def test_chains_share_a_number_in_the_order_of_the_things() -> None:
    assert connected(np.array([(4, 1), (1, 3), (0, 0)]), 6) == [0, 1, 2, 1, 1, 3]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_pictures_that_show_the_same(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (40, 50)).astype(np.uint8) for _ in range(2)]
    brighter = (scenes[1] * 0.5 + 90).astype(np.uint8)
    paths = []
    for number, picture in enumerate((scenes[0], scenes[1], brighter, scenes[0][:, ::-1])):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(paths[-1])
    assert near_duplicate_groups(paths) == [0, 1, 1, 2]
    assert near_duplicate_groups([]) == []

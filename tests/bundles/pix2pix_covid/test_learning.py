"""The real pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.files import read_json
from tests.bundles.pix2pix_covid.case import arguments
from tests.bundles.runs import forked


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_pairs_train_and_the_doctors_masks_become_slices(shared_data: Path, tmp_path: Path) -> None:
    pairs = shared_data / "covid_lesions"
    small = {"image_size": 64, "network_def#levels": 6, "network_def#ngf": 8, "discriminator_def#channels": 8}
    given = {**small, "max_epochs": 1, "dataset_dir": pairs, "output_dir": tmp_path / "run"}
    trained = forked(arguments("training", "train", **given), tmp_path / "training")
    assert trained.code == 0, trained.err
    info = read_json(tmp_path / "run" / "models" / "model.json")
    assert info["nominal_hu"] is True and info["slices"]["doctor"] == 50
    masks = pairs / "doctor" / "masks"
    model = tmp_path / "run" / "models" / "model.pt"
    settings = {"ckpt_path": model, "input_dir": masks, "output_dir": tmp_path / "out"}
    generated = forked(arguments("inference", "inference", **settings), tmp_path / "inference")
    assert generated.code == 0, generated.err
    assert "HU in its output are nominal" in generated.out + generated.err
    written = {path.name: pixels(path) for path in (tmp_path / "out").glob("*.png")}
    assert len(written) == 50
    assert set(written) == {f"{path.stem}.png" for path in masks.iterdir()}
    assert all(picture.shape[:2] == pixels(masks / name).shape[:2] for name, picture in written.items())
    assert np.mean([np.ptp(picture) for picture in written.values()]) > 20

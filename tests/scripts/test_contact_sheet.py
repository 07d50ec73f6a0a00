"""One picture of what shipped weights draw."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.files import read_json, write_json
from common.inference.checkpoint import network_for
from common.paths import METADATA, repository_root
from scripts import contact_sheet as module
from scripts.contact_sheet import SIDE, short_axis_labels, write_contact_sheet

BUNDLES = repository_root() / "bundles"


HEART = {"image_size": 32, "channels": [4, 8], "classes": 2}
LABELS = {"label_set": {"classes": ["LV", "Myo"], "label_map": {"1": "Myo", "2": "LV"}}, "image_size": 32}
NOISE = {"image_size": 32, "latent": 8, "width": 4}


def make_bundle(folder: Path, name: str, kind: str = "", arguments: Any = None, **facts: Any) -> Path:
    """The metadata of one of our bundles, and weights of a small network if its class is named."""
    write_json(folder / name / METADATA, read_json(BUNDLES / name / METADATA))
    if kind:
        (folder / name / "models").mkdir()
        weights = folder / name / "models" / "model.pt"
        facts["network"] = {"target": kind, "arguments": arguments}
        write_json(weights.with_suffix(".json"), facts)
        torch.save(network_for(weights, torch.nn.Identity()).half().state_dict(), weights)
    return folder / name


def test_rows_of_conditions_images_and_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENTS", 1)
    spade, dcgan = "common.networks.generators.SpadeGenerator", "bundles.dcgan_covid.networks.DcganGenerator"
    bundles = [
        make_bundle(tmp_path, "patchgan_cardiac", spade, HEART, **LABELS),
        make_bundle(tmp_path, "dcgan_covid", dcgan, NOISE, latent=8),
        make_bundle(tmp_path, "lung_two_stage"),
    ]
    with caplog.at_level(logging.INFO):
        paths = [write_contact_sheet(bundles, tmp_path / name / "x.png", count=2) for name in ("a", "b")]
    assert "lung_two_stage: left out, it ships no weights yet" in caplog.messages
    assert paths[0].read_bytes() == paths[1].read_bytes()
    picture = np.asarray(Image.open(paths[0]).convert("RGB")).astype(int)
    assert picture.shape[1] // SIDE >= 2 and picture.shape[0] // SIDE >= 3
    third = picture.shape[0] // 3
    coloured = [int(np.ptp(picture[k * third : (k + 1) * third], axis=2).max()) for k in range(3)]
    assert coloured[0] > 100 and coloured[1:] == [0, 0]  # label maps, then gray images, then samples
    with pytest.raises(UserError, match="no bundle ships weights"):
        write_contact_sheet(bundles[2:], tmp_path / "c.png")


def test_hearts_in_short_axis_have_adult_sizes_and_shrink_towards_the_apex() -> None:
    maps = short_axis_labels(["LV", "RV", "Myo"], count=5, size=128, spacing=2.0)
    areas = torch.stack([(maps == value).sum((1, 2, 3)) * 4.0 for value in (1, 2, 3)], 1)  # mm2, (5, 3)
    diameters = 2 * ((areas[:, 0] + areas[:, 2]) / torch.pi).sqrt()  # of ventricle and wall
    assert 66 < diameters[0] < 82 and 36 < diameters[-1] < 52
    assert (areas[0] > areas[-1]).all()
    renamed = short_axis_labels(["Myo", "RV", "LV"], count=5, size=128, spacing=2.0)
    assert torch.equal(renamed == 1, maps == 3) and torch.equal(renamed == 2, maps == 2)
    left, right = (torch.nonzero(maps[0, 0] == value).float().mean(0) for value in (1, 2))
    rows, columns = left - right
    assert rows < 0 < columns  # the right ventricle lies lower and to the left

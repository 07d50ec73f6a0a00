from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.intensity import Standardiser, window_by_name
from common.data.replay import flatten_transforms
from common.data.samples import Sample
from common.data.transforms import (
    FitSquared,
    RandGaind,
    StandardizeIntensityd,
    WindowHUd,
    find_transform,
    preprocessing_of_model,
    slice_preprocessing,
)
from common.errors import UserError


def test_a_file_becomes_a_network_input(tmp_path: Path) -> None:
    """8-bit: black is -1, white is 1, whatever the window; the mask stays {0, 1}."""
    image = np.array([[0, 255], [51, 102], [0, 0], [0, 0]], np.uint8)
    for name, array in (("image", image), ("mask", (image == 255) * np.uint8(255))):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png", "p")
    item = slice_preprocessing(["image", "label"], 4)({"record": sample})
    np.testing.assert_allclose(item["image"][0, :2, 1:3], [[-1, 1], [-0.6, -0.2]], atol=1e-6)
    assert (np.asarray(item["image"])[0, :, [0, 3]] == -1).all()  # padded
    assert np.argwhere(np.asarray(item["label"])).tolist() == [[0, 0, 2]]
    item = slice_preprocessing("image", 4, source_range=[0, 102])({"record": sample})
    assert item["image"][0, 1, 2] == 1


def test_hu_are_windowed() -> None:
    hu = np.array([[[-1000.0, -300.0, 400.0, 3000.0]]])
    np.testing.assert_allclose(WindowHUd("image")({"image": hu})["image"], [[[0, 0.5, 1, 1]]])


def test_a_scan_is_standardised_as_one_and_hu_are_left_alone() -> None:
    random = np.random.default_rng(0)
    items = [
        {"image": random.random((1, 9, 9), np.float32), "is_hu": n == 3, "patient": "ab"[n // 2]}
        for n in range(4)
    ]
    transform = StandardizeIntensityd("image", "histogram")
    result = transform.map_items(items, training=True)
    standard = Standardiser("histogram", window_by_name("lung"))
    scans = {"a": [items[n]["image"][0] for n in (0, 1)], "b": [items[2]["image"][0]]}
    standard.fit(scans)
    for n, expected in enumerate(standard.apply_scan(scans["a"])):
        np.testing.assert_array_equal(result[n]["image"][0], expected)
    np.testing.assert_array_equal(result[3]["image"], items[3]["image"])
    again = StandardizeIntensityd("image", state=transform.standardiser.state())
    assert not again.learns and again.standardiser.quantiles == transform.standardiser.quantiles


def test_a_models_preprocessing_comes_back() -> None:
    info = {
        "preprocessing": [
            {"target": "common.data.transforms.WindowHUd", "arguments": {"keys": "image", "window": "bone"}},
            {"target": "Resized", "arguments": {"keys": "image", "spatial_size": [8, 8]}},
            {"target": "common.data.transforms.FitSquared", "arguments": {"keys": "image", "image_size": 8}},
            {"target": "monai.transforms.ScaleIntensityd", "arguments": {"keys": "image", "minv": -1}},
        ]
    }
    steps = flatten_transforms(preprocessing_of_model(info, "image", 16, "lung"))
    assert [type(step).__name__ for step in steps] == [
        "WindowHUd",
        "Resized",
        "FitSquared",
        "ScaleIntensityd",
    ]
    assert steps[0].window == window_by_name("lung") and steps[2].image_size == 16  # as asked for
    item = preprocessing_of_model(info, "image", 16)({"image": np.random.default_rng(0).random((1, 4, 4))})
    assert item["image"].shape == (1, 16, 16) and item["image"].min() == -1
    before = preprocessing_of_model({"fit": "crop", "standardiser": None}, "image", 16)
    assert find_transform(before, FitSquared).fit == "crop"
    for target in ("os.system", "evil.Transform", "common.errors.UserError", "NoSuchd"):
        info["preprocessing"][1]["target"] = target
        with pytest.raises(UserError, match=f"'{target}', which is neither MONAI's nor this project's"):
            preprocessing_of_model(info, "image", 16)


def test_a_gain_leaves_black_and_stays_in_range() -> None:
    image = torch.tensor([[[-1.0, 0.0, 1.0]]])
    gain = RandGaind("image", 0.1)
    values = torch.stack([gain.set_random_state(n)({"image": image})["image"][0, 0] for n in range(200)])
    assert (values[:, 0] == -1).all() and values[:, 2].max() == 1
    assert values[:, 1].min() == pytest.approx(-0.1, abs=0.01) and values[:, 1].max() == pytest.approx(
        0.1, abs=0.01
    )

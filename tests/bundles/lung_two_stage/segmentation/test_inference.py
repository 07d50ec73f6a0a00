from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.enhancement.nodule_preservation import load_segmenter
from bundles.lung_two_stage.segmentation.inference import (
    EmptyMask,
    SegmentationMethod,
    candidates_from,
    check_unseen,
    load_method,
    mask_from,
    models_by_name,
    predict_probabilities,
    with_baselines,
)
from bundles.lung_two_stage.segmentation.network import DenseUNet
from common.data.intensity import Window
from common.data.samples import Sample
from common.errors import UserError
from tests.bundles.lung_two_stage.segmentation.made import Brightness, Told, ball_mask, scan_of

WINDOW = Window(-1000, 400)
LARGE, SMALL = np.s_[2:4, 10:14, 6:9], np.s_[6:7, 2:3, 2:4]


def test_probabilities_are_the_sigmoid_of_logits_in_the_models_window() -> None:
    hu = np.array([[[-1000, -300], [400, 3000]]], np.int16)
    network = Brightness().train()
    result = predict_probabilities(network, hu, WINDOW)
    expected = 1 / (1 + np.exp(-4 * np.array([[[-1, 0], [1, 1]]])))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert result.dtype == np.float32 and network.training  # modes stay


def test_a_models_own_preprocessing_is_used_and_must_keep_the_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DenseUNet(4, 1, 2, 1).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    network_info = {
        "target": "bundles.lung_two_stage.segmentation.network.DenseUNet",
        "arguments": {"width": 4, "halvings": 1, "growth": 2, "layers": 1},
    }
    steps = [
        {"target": "common.data.transforms.WindowHUd", "arguments": {"keys": "image", "window": [-1000, 0]}},
        {
            "target": "ScaleIntensityRanged",
            "arguments": {"keys": "image", "a_min": 0, "a_max": 1, "b_min": 0, "b_max": 3},
        },
    ]
    info = {"network": network_info, "window_hu": [-1000, 400], "preprocessing": steps}
    (tmp_path / "model.json").write_text(json.dumps(info))
    scan = scan_of(ball_mask((2, 8, 8), np.s_[0:1, 1:3, 1:3]))
    images = (np.clip(scan.hu.astype(np.float32), -1000, 0) + 1000) / 1000 * 3
    with torch.inference_mode():
        logits = network(torch.from_numpy(images)[:, None])
        expected = logits[:, 0].sigmoid().numpy()
    method = load_method("mine", tmp_path / "model.pt")
    np.testing.assert_allclose(method._probabilities(scan), expected, atol=1e-5)
    segmenter = load_segmenter(tmp_path / "model.pt", WINDOW)
    clipped = np.clip(scan.hu, -1000, 400)
    shown = torch.from_numpy((clipped[:, None].astype(np.float32) + 1000) / 700 - 1)
    assert segmenter is not None and torch.equal(segmenter(shown), logits > 0)
    steps.append({"target": "Resized", "arguments": {"keys": "image", "spatial_size": [4, 4]}})
    (tmp_path / "model.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="transforms that keep the size"):
        load_method("mine", tmp_path / "model.pt").masks(scan)


def test_many_slices_pass_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (5, 8, 8)).astype(np.int16)
    whole = predict_probabilities(Brightness(), hu, WINDOW)
    monkeypatch.setattr("bundles.lung_two_stage.segmentation.inference.BATCH_PIXELS", 128)
    np.testing.assert_array_equal(predict_probabilities(Brightness(), hu, WINDOW), whole)


def test_candidates_of_a_known_mask() -> None:
    mask = ball_mask((8, 20, 20), LARGE, SMALL)
    scan = scan_of(mask)
    probabilities = np.where(mask > 0, 0.6, 0.1).astype(np.float32)
    probabilities[3, 10, 6] = 0.9
    (candidate,) = candidates_from(probabilities, scan, least_voxels=3)
    assert candidate.scan == "a" and candidate.score == pytest.approx(0.9)
    assert candidate.position_mm == pytest.approx((5.0, 11.5, 7.0), abs=0.1)
    assert candidate.position_mm[0] > 5.0  # drawn towards the surest voxel
    assert candidate.radius_mm == pytest.approx((0.75 * 24 * 2 / np.pi) ** (1 / 3))
    assert len(candidates_from(probabilities, scan, least_voxels=2)) == 2
    assert candidates_from(probabilities, scan, levels=[0.95]) == []
    assert mask_from(probabilities, least_voxels=3).sum() == 24
    np.testing.assert_array_equal(mask_from(probabilities, least_voxels=1), mask)


def test_unsure_pieces_are_candidates_and_do_not_swallow_the_sure_ones() -> None:
    """Two sure nodules in one faint cloud stay two; what was never above 0.5 is found with what it had."""
    scan = scan_of(ball_mask((1, 60, 60)))
    probabilities = np.full((1, 60, 60), 0.01, np.float32)
    probabilities[0, 4:20, 4:30] = 0.15
    probabilities[0, 6:10, 6:10], probabilities[0, 6:10, 20:24] = 0.9, 0.6
    probabilities[0, 40:44, 40:46] = 0.3
    probabilities[0, 50:54, 4:8] = 0.06
    result = candidates_from(probabilities, scan)
    scores = {(round(c.position_mm[1], 1), round(c.position_mm[2], 1)): round(c.score, 2) for c in result}
    assert scores == {(7.5, 7.5): 0.9, (7.5, 21.5): 0.6, (41.5, 42.5): 0.3, (51.5, 5.5): 0.06}
    assert mask_from(probabilities).sum() == 32  # the mask is where the method decides


def test_a_doubt_about_the_whole_picture_is_no_candidate() -> None:
    scan = scan_of(ball_mask((1, 80, 80)))  # 80 mm
    assert candidates_from(np.full((1, 80, 80), 0.3, np.float32), scan) == []
    assert len(candidates_from(np.full((1, 40, 40), 0.3, np.float32), scan_of(ball_mask((1, 40, 40))))) == 1


def test_pieces_one_voxel_apart_are_one_candidate() -> None:
    mask = ball_mask((1, 20, 20), np.s_[0:1, 2:5, 2:5], np.s_[0:1, 6:8, 2:5], np.s_[0:1, 12:14, 12:14])
    result = candidates_from(mask.astype(np.float32), scan_of(mask))
    assert len(result) == 2
    assert result[0].radius_mm == pytest.approx(np.sqrt(15 / np.pi))  # a picture: discs


def test_a_method_answers_both_questions_alike() -> None:
    mask = ball_mask((8, 20, 20), LARGE)
    scan = scan_of(mask)
    method = SegmentationMethod("mine", Brightness(), WINDOW)
    np.testing.assert_array_equal(method.masks(scan), mask)
    (candidate,) = method.candidates(scan)
    assert candidate.position_mm == pytest.approx(scan.nodules[0].centre_mm)
    other = scan_of(ball_mask((8, 20, 20)), "b")
    assert method.candidates(other) == []  # not those of the scan before


def test_a_trained_model_is_loaded_and_its_untrained_copy_is_seeded(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = DenseUNet(4, 1, 2, 1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    arguments = {"width": 4, "halvings": 1, "growth": 2, "layers": 1}
    target = "bundles.lung_two_stage.segmentation.network.DenseUNet"
    info = {"network": {"target": target, "arguments": arguments}, "window_hu": [-1350, 150]}
    (tmp_path / "model.json").write_text(json.dumps(info))
    method = load_method("mine", tmp_path / "model.pt")
    assert isinstance(method, SegmentationMethod) and method.window == Window(-1350, 150)
    assert torch.equal(method.network.state_dict()["head.weight"], network.head.weight)
    state = torch.get_rng_state()
    copies = [method.untrained(seed).network.state_dict()["head.weight"] for seed in (0, 0, 1)]
    assert torch.equal(copies[0], copies[1]) and not torch.equal(copies[0], copies[2])
    assert not torch.equal(copies[0], network.head.weight)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UserError, match="no trained model yet"):
        load_method("mine", tmp_path / "none.pt")
    (tmp_path / "model.json").write_text(json.dumps({"method": "os.system"}))
    with pytest.raises(UserError, match=r"model\.json: 'os\.system' is no method of this bundle"):
        load_method("mine", tmp_path / "model.pt")


def test_baselines_come_last() -> None:
    mine = SegmentationMethod("mine", Brightness(), Window(-1000, 400))
    names = [method.name for method in with_baselines([Told("baseline", {}), mine, mine])]
    assert names == ["baseline", "mine", "mine", "untrained mine", "empty mask"]
    scan = scan_of(ball_mask((2, 4, 4), np.s_[0:1, 1:3, 1:3]))
    assert EmptyMask().candidates(scan) == [] and not EmptyMask().masks(scan).any()


def test_models_have_names() -> None:
    assert models_by_name({"U-Net": "b"}, "a") == {"U-Net": "b"}
    with pytest.raises(UserError, match="give names and files"):
        models_by_name("b", "a")  # type: ignore[arg-type]


def test_models_are_not_evaluated_on_what_they_learned_from(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(
        json.dumps({"splits": {"train": ["a"], "val": ["b"], "test": ["c"]}})
    )
    records = {name: Sample(tmp_path / name, None, name) for name in "abc"}
    models = {"mine": tmp_path / "model.pt", "unknown": tmp_path / "other.pt"}
    check_unseen(models, [records["c"]])
    for name in "ab":
        with pytest.raises(UserError, match=f"was trained with patient {name}"):
            check_unseen(models, [records["c"], records[name]])

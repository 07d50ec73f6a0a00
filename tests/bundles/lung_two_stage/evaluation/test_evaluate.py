"""``train_diagnosis.yaml`` and ``evaluate.yaml`` as a user starts them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.evaluation.evaluate import (
    BLURRED,
    REAL,
    SliceClassifierScores,
    baseline_sets,
    chain_sets,
    changed_share,
    compare_sets,
    describe_preservation,
    format_sets,
    in_window,
    nodule_preservation,
    with_equal_noise,
)
from bundles.lung_two_stage.generation.networks import ConvolutionalGenerator
from common.data.intensity import WINDOWS, Window
from common.files import read_json, write_json
from common.metrics.evaluate import RealImages, SetEvaluator
from common.metrics.features import RandomVGG
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.made_work import made_work, write_composites
from tests.bundles.runs import Run, forked


def run(run_id: str, config: str, work: Path, log: Path, **settings: Any) -> Run:
    overrides = {"work_dir": work, "bases_dir": work / "extraction" / "healthy_slices", **settings}
    return forked(CASE.arguments(run_id, config, **overrides), log)


def train(work: Path, log: Path, **settings: Any) -> Run:
    tiny = {"max_epochs": 1, "network_def#width": 2, "network_def#levels": 2, "synthetic": 12}
    return run("training", "train_diagnosis", work, log, **{**tiny, **settings})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before leave, and a diagnosis trained for an epoch."""
    folder = made_work(tmp_path_factory.mktemp("work"))
    shutil.copytree(folder / "composites", folder / "enhanced")
    done = train(folder, folder / "log")
    assert done.code == 0, done.err
    return folder


def test_a_diagnosis_knows_its_classes(work: Path) -> None:
    about = read_json(work / "diagnosis" / "models" / "model.json")
    assert about["classes"] == ["none", "solid", "part_solid"] and about["regime"] == "both"
    assert set(about["metrics"]) == {"auc", "balanced_accuracy"}
    state = torch.load(work / "diagnosis" / "models" / "model.pt", weights_only=True)
    assert len(state["last.weight"]) == 3
    with (work / "diagnosis" / "logs" / "losses.csv").open(newline="") as file:
        assert "S_ce" in next(csv.DictReader(file))


def test_an_evaluation_leaves_numbers_and_a_panel(work: Path, tmp_path: Path) -> None:
    overrides = {
        "num_samples": 8,
        "resamples": 3,
        "seeds": 1,
        "synthetic": 12,
        "output_dir": tmp_path / "out",
    }
    overrides |= {"budget": "{'iterations':2,'batch_size':4}", "downstream_tasks": "['nodule']"}
    done = run("evaluating", "evaluate", work, tmp_path / "log", **overrides)
    assert done.code == 0, done.err
    result = read_json(tmp_path / "out" / "metrics.json")
    assert {"composites", "enhanced", "real_real"} < set(result["table_3"]["fid_gridvgg"])
    assert "is_diagnosis_of_3" in result["table_3"] and result["nodules"]["contrast_kept"] == 1
    assert (
        result["effect"]["changed_share"] == 0
    )  # nothing was enhanced, and no noise is as strong as nothing
    changes = result["effect"]["kid_change"]
    assert changes["enhanced"]["mean"] == 0 and changes["composites_noised"]["mean"] == 0
    task = result["downstream_tasks"]["nodule"]
    assert set(task["metrics"]["auc"]) == {"real", "oversampled", "synthetic", "both"}
    assert task["sentence"] in done.out and "Table III" in done.out
    assert (tmp_path / "out" / "panel.png").is_file()


@pytest.mark.slow
def test_a_stopped_and_resumed_diagnosis_is_the_straight_one(work: Path, tmp_path: Path) -> None:
    for name, parts in (("straight", [2]), ("stopped", [1, 2])):
        for number, last in enumerate(parts):
            overrides = {"max_epochs": last, "resume": number > 0, "decay_from": 1.0, "val_interval": 1}
            done = train(work, tmp_path / "log", output_dir=tmp_path / name, **overrides)
            assert done.code == 0, done.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.mark.slow
def test_the_trained_diagnosis_beats_an_untrained_one(work: Path, tmp_path: Path) -> None:
    overrides = {"max_epochs": 12, "network_def#width": 8, "synthetic": 40, "task": "nodule"}
    done = train(work, tmp_path / "log", output_dir=tmp_path / "run", **overrides)
    assert done.code == 0, done.err
    assert read_json(tmp_path / "run" / "models" / "model.json")["metrics"]["auc"] > 0.8


LUNG = WINDOWS["lung"]


def test_the_same_composites_before_and_after(tmp_path: Path) -> None:
    before, after = (write_composites(tmp_path / name, 9, 4) for name in ("before", "after"))
    sets, masks, patients = chain_sets(before, after, LUNG, 5)
    torch.testing.assert_close(sets["composites"], sets["enhanced"])
    assert sets["enhanced"].shape == masks.shape == (5, 1, 32, 32)
    assert set(patients) <= {"a_0", "a_1", "a_2"} and len(patients) == 5
    shown = {(composite.mask > 0).tobytes() for composite in Composites(before)}
    assert all((mask.numpy()[0] > 0).tobytes() in shown for mask in masks)


def test_a_baselines_slices_come_in_size_and_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = {"image_size": 16, "latent": 4, "width": 4, "channels": 1, "classes": 2}
    network = ConvolutionalGenerator(**arguments)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    target = "bundles.lung_two_stage.generation.networks.ConvolutionalGenerator"
    about = {"latent": 4, "window_hu": [-1000, 400], "network": {"target": target, "arguments": arguments}}
    write_json(tmp_path / "model.json", about)
    paths = {"dcgan": tmp_path / "model.pt", "gan": tmp_path / "none.pt"}
    with caplog.at_level("INFO"):
        sets = baseline_sets(paths, 35, (32, 32), LUNG)
    assert set(sets) == {"dcgan"} and "gan is not trained" in caplog.text
    images = sets["dcgan"]
    assert images.shape == (35, 1, 32, 32) and float(images.abs().max()) <= 1
    assert torch.equal(baseline_sets(paths, 35, (32, 32), LUNG)["dcgan"], images)


def test_windows_are_brought_together() -> None:
    """-600..0 HU seen in -1000..400: its ends are 400 and 1000 of 1400 HU up."""
    images = torch.tensor([-1.0, 1.0])
    expected = torch.tensor([400 / 700 - 1, 1000 / 700 - 1])
    torch.testing.assert_close(in_window(images, Window(-600, 0), LUNG), expected)


def test_a_washed_out_nodule_is_told() -> None:
    masks = torch.zeros(1, 1, 32, 32)
    masks[..., 12:20, 12:20] = 1
    before = masks - 0.8
    assert nodule_preservation(before, before, masks, None)["contrast_kept"] == 1
    kept = nodule_preservation(before, masks * 0.25 - 0.8, masks, None)
    assert kept["contrast_kept"] == pytest.approx(0.25) and kept["dice_after"] is None
    assert describe_preservation(kept).startswith("nodules after the enhancement: 0.250 of their contrast")


def noise(seed: int, count: int, level: float) -> Tensor:
    """Images around a level of gray."""
    numbers = torch.Generator().manual_seed(seed)
    return (torch.randn(count, 1, 16, 16, generator=numbers) * 0.2 + level).clamp(-1, 1)


class Halves(nn.Module):
    """Sure of class 0 for the dark and of class 1 for the bright images."""

    def forward(self, images: Tensor) -> Tensor:
        bright = (images.mean((1, 2, 3)) > 0).float() * 20
        return torch.stack([10 - bright, bright - 10], dim=1)


@pytest.fixture(scope="module")
def table() -> dict:
    real = torch.cat([noise(0, 5, -0.4), noise(1, 5, 0.4)])
    training = torch.cat([noise(2, 5, -0.4), noise(3, 5, 0.4)])
    patients = [str(k) for k in range(10)]
    images = RealImages(real, patients, training[:4], training, patients)
    evaluator = SetEvaluator(images, RandomVGG(), resamples=5, k=3)
    alike = torch.cat([noise(4, 5, -0.4), noise(5, 5, 0.4)])[torch.randperm(10)]
    sets = {"near": alike, "far": noise(6, 12, 0.9)}
    return compare_sets(evaluator, sets, SliceClassifierScores(Halves(), "halves"))


def test_the_nearer_and_more_diverse_set_wins(table: dict) -> None:
    assert table["fid_randvgg"]["near"]["mean"] < table["fid_randvgg"]["far"]["mean"]
    assert table["coverage"]["near"]["mean"] > table["coverage"]["far"]["mean"]
    assert table["is_halves"]["near"]["mean"] == pytest.approx(2, abs=0.01)
    assert table["is_halves"]["far"]["mean"] == pytest.approx(1, abs=0.01)
    assert table["is_halves"]["better"] == "higher" and table["fid_randvgg"]["better"] == "lower"


def test_sets_are_of_equal_numbers_and_real_ones_stand_beside(table: dict) -> None:
    assert table["fid_randvgg"]["far"]["n"] == table["fid_randvgg"]["near"]["n"] == 10
    assert set(table["is_halves"]) == {"better", "near", "far", REAL, BLURRED}
    assert table["excess_kid_randvgg"][REAL]["mean"] == pytest.approx(0, abs=1e-9)
    assert table["fid_randvgg"][BLURRED]["mean"] is None and table["kid_randvgg"][REAL]["patients"] == 10
    text = format_sets(table)
    assert text.splitlines()[0].split()[:4] == ["metric", "near", "far", REAL]


def test_a_quarter_of_the_lung_that_got_denser() -> None:
    before = np.full((1, 64, 64), -850, np.int16)
    lungs = np.zeros(before.shape, bool)
    lungs[:, :, 16:48] = True
    after = before.copy()
    after[:, :, 40:] += 30
    assert changed_share(before, after, lungs) == pytest.approx(7 / 32)  # less a column, which blur takes
    assert changed_share(before, after, lungs, least=40) == 0
    assert np.isnan(changed_share(before, after, np.zeros_like(lungs)))


def test_grain_alone_is_no_change() -> None:
    before = np.full((2, 64, 64), -850, np.int16)
    after = before + np.random.default_rng(0).normal(0, 40, before.shape)
    assert changed_share(before, after, np.ones(before.shape, bool)) < 0.02


def test_noise_is_as_strong_as_each_images_change() -> None:
    before = torch.zeros(2, 1, 48, 64)
    after = before.clone()
    after[0] += 0.05
    after[1, :, :24] -= 0.2
    change = with_equal_noise(before, after) - before
    expected = torch.tensor([0.05, 0.2 / 2**0.5])
    torch.testing.assert_close(change.square().mean((1, 2, 3)).sqrt(), expected, rtol=0.1, atol=0)
    assert not torch.equal(change[0] / 0.05, change[1] / expected[1])
    assert torch.equal(with_equal_noise(before, after), before + change)

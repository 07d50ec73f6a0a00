"""Table III on sets whose order is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.evaluation.table import (
    BLURRED,
    REAL,
    SliceClassifierScores,
    compare,
    load_classifier,
    rows,
)
from common.metrics.randvgg import RandomVGG
from common.metrics.set_evaluation import RealImages, SetEvaluator


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
    return compare(evaluator, sets, SliceClassifierScores(Halves(), "halves"))


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
    text = rows(table)
    assert text.splitlines()[0].split()[:4] == ["metric", "near", "far", REAL]


def test_without_a_diagnosis_there_is_no_score(tmp_path) -> None:
    assert load_classifier(tmp_path / "model.pt") is None

"""Trainings in every regime: fair, repeatable, and good enough to tell a useless set from a useful one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import RandFlipd
from torch import nn

from bundles.lung_two_stage.downstream.data import SliceItems, Slices, Sources, bank_slices
from bundles.lung_two_stage.downstream.utility import SliceClassifier, Utility, classification, segmentation
from common.data.intensity import WINDOWS
from common.training.fit_supervised import Budget, fit, predictions, seeded
from tests.bundles.lung_two_stage.made_work import slice_bank

TINY = {"iterations": 2, "batch_size": 4}
FLIP = RandFlipd(["image", "label"], 0.5, spatial_axis=1)


def slices(name: str, count: int, seed: int = 0) -> Slices:
    return bank_slices(slice_bank([f"{name}{k}" for k in range(count)], 2, [1, 0], seed), WINDOWS["lung"])


def sources(broken: bool = False) -> Sources:
    """Two real positives and eight negatives; twelve synthetic ones of each, without a picture if broken."""
    real = slices("r", 8)
    few = real.subset([0, 2, *np.flatnonzero(~real.has_nodule)])
    synthetic = slices("s", 12, seed=1)
    if broken:
        synthetic = replace(synthetic, images=torch.zeros_like(synthetic.images))
    return Sources(few, synthetic, slices("v", 1), slices("t", 6, seed=2))


def make() -> nn.Module:
    return SliceClassifier(width=4, levels=2)


def test_a_comparison_is_whole_and_repeats() -> None:
    results = []
    for _ in range(2):
        torch.rand(3)  # what happened before must not matter
        utility = Utility(sources(), ["real", "both"], 2, TINY, FLIP, resamples=20)
        results.append(utility.compare(classification("nodule", make, 2)))
    assert results[0] == results[1]
    result = results[0]
    assert set(result["metrics"]) == {"auc", "balanced_accuracy", "sensitivity", "specificity"}
    assert set(result["differences"]) == {"both"} and result["test_patients"] == 6
    assert result["metrics"]["auc"]["both"]["n"] == 12 and len(result["by_seed"]["real"]) == 2
    difference = np.mean(result["by_seed"]["both"]) - np.mean(result["by_seed"]["real"])
    assert result["differences"]["both"]["mean"] == pytest.approx(difference)
    assert result["differences_to_oversampled"] == {}


def test_synthetic_slices_are_compared_with_repeated_nodules_too() -> None:
    utility = Utility(sources(), ["real", "oversampled", "both"], 1, TINY, resamples=5)
    result = utility.compare(classification("nodule", make, 2))
    assert set(result["differences"]) == {"oversampled", "both"}
    assert set(result["differences_to_oversampled"]) == {"both"}
    values = {regime: result["metrics"]["auc"][regime]["mean"] for regime in ("oversampled", "both")}
    gain = result["differences_to_oversampled"]["both"]["mean"]
    assert gain == pytest.approx(values["both"] - values["oversampled"])
    assert "nodule, against real slices with their nodules repeated: both" in result["sentence"]


def test_the_segmenter_and_the_categories_are_compared_alike() -> None:
    utility = Utility(sources(), ["real", "synthetic"], 1, TINY, resamples=5)
    dice = utility.compare(segmentation(lambda: nn.Conv2d(1, 1, 3, padding=1)))
    assert set(dice["metrics"]) == {"dice"} and 0 <= dice["metrics"]["dice"]["real"]["mean"] <= 1
    categories = utility.compare(classification("category", make, 2))
    assert categories["test_slices"] == 6 and set(categories["metrics"]) == {"auc", "balanced_accuracy"}


@pytest.mark.slow
def test_useful_slices_are_told_from_useless_ones() -> None:
    budget = {"iterations": 80, "batch_size": 8}
    good, bad = (
        Utility(sources(broken), ["real", "synthetic"], 2, budget, resamples=50).compare(
            classification("nodule", lambda: SliceClassifier(width=8, levels=3), 2)
        )
        for broken in (False, True)
    )
    assert good["metrics"]["auc"]["synthetic"]["mean"] > 0.9
    assert bad["metrics"]["auc"]["synthetic"]["mean"] < 0.8


def test_the_classifier_learns() -> None:
    items = SliceItems(slices("s", 12, seed=1))
    network = seeded(lambda: SliceClassifier(width=8, levels=2, dropout=0.0), 0, "n")
    terms = {"ce": nn.CrossEntropyLoss()}
    truth = torch.from_numpy(items.classes)
    before = nn.functional.cross_entropy(predictions(network.eval(), items.slices.images), truth)
    fit(network, items, terms, "class", Budget(50, 8, 1e-2), 0)
    assert float(nn.functional.cross_entropy(predictions(network, items.slices.images), truth)) < 0.8 * before

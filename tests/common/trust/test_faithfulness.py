"""Faithfulness with known answers: images that show their conditions, and images that ignore them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from common.data.loaders import SampleIndex
from common.errors import UserError
from common.metrics.features import extract, extractor_by_name
from common.metrics.fid import fid
from common.metrics.segmentation import compare_components
from common.training.fit_supervised import Budget
from common.trust.faithfulness import TrainingSlices, faithfulness, known_conditions
from common.trust.image_sets import ImageSet, Sets
from common.trust.report import Section
from tests.common.trust.made import ignoring, made, made_sets

BUDGET = Budget(20, 8, 1e-2)


def told(synthetic: ImageSet) -> Section:
    section = faithfulness(made_sets(synthetic, 16, 8), 0, BUDGET, resamples=50)
    assert section is not None
    return section


def test_images_that_show_their_conditions_are_faithful_and_others_are_not() -> None:
    """By their look, which FID judges, both are alike."""
    good, bad = told(made("good", 12, 3)), told(ignoring(12, 3))
    first, second = ({figure.name: figure for figure in section.figures} for section in (good, bad))
    assert first["condition_faithfulness"].value.mean > 0.9
    assert abs(second["condition_faithfulness"].value.mean) < 0.2
    dice = second["dice"]
    assert abs(dice.value.mean - dice.baselines["shuffled_conditions"].mean) < 0.2
    assert dice.baselines["heldout_real"].mean > 0.8 and first["dice"].value.mean > 0.8
    assert second["false_structures"].value.mean > 0.5 > first["false_structures"].value.mean
    assert "hardly depend" in bad.statement and "about as well as real" in good.statement
    listed = bad.facts["images_that_lose_structures"]
    assert len(listed) > 6 and all(found == {"square": 1} for found in listed.values())
    assert bad.pictures and not good.facts["images_that_lose_structures"]

    real, extractor = made("real", 24, 1).images, extractor_by_name("randvgg")
    distances = [
        fid(extract(extractor, real), extract(extractor, images))
        for images in (ignoring(24, 3).images, torch.zeros_like(real))
    ]
    assert distances[0] < 0.2 * distances[1]


def test_a_segmenter_that_learned_nothing_judges_nothing() -> None:
    sets = made_sets(made("good", 6, 3), 8, 8)
    section = faithfulness(sets, 0, Budget(1, 2, 1e-6), resamples=20)
    assert section is not None
    assert section.statement.startswith("Cannot be judged") and "more iterations" in section.warnings[0]
    assert math.isnan(section.figures[0].value.mean)  # not a division by next to nothing


def test_conditions_that_the_segmenter_has_learned_are_counted() -> None:
    real, others = made("real", 6, 1), made("others", 4, 9)
    mixed = replace(others, labels=torch.cat([real.labels[:1], others.labels[1:]]))
    assert known_conditions(mixed, real) == 1 and known_conditions(replace(others, labels=None), real) == 0


def test_without_conditions_there_is_nothing_to_ask() -> None:
    bare = replace(made("bare", 4, 3), labels=None)
    assert faithfulness(made_sets(bare)) is None


def test_sets_of_other_structures_are_refused() -> None:
    other = replace(made("other", 4, 3), structures=("LV",))
    with pytest.raises(UserError, match="structures differ"):
        faithfulness(made_sets(other))


def test_parts_are_lost_and_invented_one_by_one() -> None:
    wanted, found = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    wanted[0, 0, 2:6, 2:6] = 1  # found in part
    found[0, 0, 5:9, 5:9] = 1
    wanted[0, 0, 20:24, 2:6] = 1  # lost
    wanted[0, 0, 20:24, 20:24] = 2  # found as another structure: one lost, one invented
    found[0, 0, 20:24, 20:24] = 1
    found[1, 0, 3, 3] = 1  # a speck
    parts = compare_components(found, wanted, 2)
    assert parts.expected.tolist() == [[2, 1], [0, 0]]
    assert parts.lost.tolist() == [[1, 1], [0, 0]]
    assert parts.invented.tolist() == [[1, 0], [0, 0]]
    assert parts.listed(parts.lost, ["a", "b"]) == [(0, {"a": 1, "b": 1})]


def test_only_structures_that_the_labels_hold_are_reported() -> None:
    """Of four names the second is in no label and the fourth beyond them all."""
    names = ("square", "never", "other", "beyond")
    sets = [
        replace(
            each,
            labels=each.labels * (1 + 2 * (torch.arange(len(each)) % 2)).view(-1, 1, 1, 1),
            structures=names,
        )
        for each in (made("real", 8, 1), made("heldout", 6, 2), made("synthetic", 6, 3))
    ]
    section = faithfulness(Sets(*sets), 0, Budget(1, 4), resamples=20)
    assert section is not None and section.facts["structures"] == ["square", "never", "other"]
    reported = {
        figure.name.partition("_")[2] for figure in section.figures if figure.name.startswith("dice_")
    }
    assert reported == {"square", "other"}


def test_training_slices_and_their_maps_are_moved_alike_and_repeatably() -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    labels[:, :, 4:14, 18:28] = 2
    slices = TrainingSlices(labels.float() - 1, {"label": labels, "class": torch.tensor([3, 1])}, seed=5)
    first, again, later = (slices[SampleIndex(1, epoch)] for epoch in (0, 0, 1))
    assert torch.equal(first["image"], again["image"]) and not torch.equal(first["image"], later["image"])
    assert set(first["label"].unique().tolist()) == {0.0, 2.0} and int(first["class"]) == 1
    differing = (first["image"] > 0) != (first["label"] > 1)
    assert differing.float().mean() < 0.03 and not torch.equal(first["label"], labels[1])
    assert torch.equal(slices[1]["image"], labels[1].float() - 1)
    assert torch.equal(slices[1]["label"], labels[1].float())

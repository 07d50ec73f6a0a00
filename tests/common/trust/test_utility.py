"""Utility with known answers: harmful, neutral and no synthetic images."""

from __future__ import annotations

from dataclasses import replace

import torch

from common.training.fit_supervised import Budget
from common.trust.image_sets import ImageSet, Sets
from common.trust.report import Section
from common.trust.utility import leave_out_heldout, real_parts, utility
from tests.common.trust.made import drawn, ignoring, image_set, made, made_sets, squares

BUDGET = Budget(15, 8, 1e-2)


def by_name(section: Section) -> dict[str, float]:
    return {figure.name: figure.value.mean for figure in section.figures}


def test_images_that_ignore_their_labels_harm_and_the_words_say_so() -> None:
    section = utility(made_sets(ignoring(24, 3), 16, 8), 0, 1, BUDGET, (0.25,), resamples=50)
    values = by_name(section)
    assert values["dice_trained_on_real"] > 0.7 > 0.3 > values["dice_trained_on_synthetic"]
    assert values["dice_gain_at_25_percent"] < -0.2
    assert "synthetic is worse" in section.statement and "better" not in section.statement
    curve = {line.name: line for line in section.plots[0].lines}
    assert curve["real"].x == [25, 100] and len(curve["real + synthetic"].low) == 2
    numbers = section.facts["training_images"]
    assert (
        numbers["real_and_synthetic_25_percent"] == 4 + numbers["synthetic"]
        and numbers["real_25_percent"] == 4
    )


def test_classes_are_told_apart_where_there_are_folders() -> None:
    """Bright and dark slices; the synthetic ones have their classes swapped."""
    sets = Sets(classed("real", 16, 1), classed("heldout", 8, 2), classed("synthetic", 16, 3, swapped=True))
    values = by_name(utility(sets, 0, 1, Budget(10, 8, 1e-2), (), resamples=50))
    assert values["balanced_accuracy_trained_on_real"] == 1
    assert values["balanced_accuracy_gain_synthetic"] == -1


def classed(name: str, count: int, seed: int, swapped: bool = False) -> ImageSet:
    images = drawn(squares(count, seed), seed)
    images[::2] = (images[::2] + 0.6).clamp(-1, 1)
    kinds = ("dark", "bright") if swapped else ("bright", "dark")
    plain = image_set(name, squares(count, seed), images, 4, labelled=False)
    return replace(plain, names=[f"{kinds[k % 2]}/{name}{k}.png" for k in range(count)])


def test_without_labels_and_classes_it_says_so() -> None:
    bare = [image_set(name, squares(4, 1), torch.zeros(4, 1, 32, 32), 2, False) for name in "rhs"]
    section = utility(Sets(*bare))
    assert "nothing to train for" in section.statement and not section.figures


def test_parts_of_the_real_images_are_nested_and_of_whole_patients() -> None:
    parts = real_parts(made("real", 40, 1, 20), (0.1, 0.25, 1.0), 0)
    assert [(percent, len(set(part.patients))) for percent, part in parts.items()] == [
        (10, 2), (25, 5), (100, 20),
    ]  # fmt: skip
    assert set(parts[10].names) < set(parts[25].names) and len(parts[10]) == 4
    assert list(real_parts(made("real", 4, 1, 2), (0.1, 0.25), 0)) == [50, 100]


def test_the_held_out_patients_own_labels_are_left_out() -> None:
    labels = squares(20, 5)
    heldout = image_set("heldout", labels[:8], drawn(labels[:8], 2))
    own = torch.cat([labels[:5], squares(15, 6)])
    mixed = image_set("mixed", own, drawn(own, 5))
    kept, said = leave_out_heldout(mixed, heldout)
    assert len(kept) == 15 and said.startswith("5 of 20") and "left out" in said
    assert leave_out_heldout(heldout, heldout)[0] is heldout

from __future__ import annotations

import dataclasses

import pytest
import torch

from common.rng import make_rng
from common.trust.near_copies import (
    blur,
    choose_reference,
    combine_views,
    draw_principal,
    harmless_images,
    match_features,
    plant_copies,
)
from common.trust.registration import WHOLE, Matches
from tests.common.trust.made import made_copies, pictures


def matches(distances: list[list[float]], images: list[list[int]]) -> Matches:
    places = torch.tensor(images)
    squared = torch.tensor(distances, dtype=torch.float64).square()
    return Matches(1 - squared / 2, places, torch.zeros_like(places))


def test_nearness_is_relative_to_the_next_patients_in_the_most_outstanding_view() -> None:
    """Blur halves all distances and changes nothing; the second view knows the last image."""
    usual, near = [0.5, 0.55, 0.6, 0.6], [0.06, 0.55, 0.6, 0.6]
    places = [[0, 1, 2, 3]] * 6
    blurred = [value / 2 for value in usual]
    first = matches([usual, [0.45, 0.6, 0.6, 0.6], [0.4, 0.6, 0.6, 0.6], near, blurred, usual], places)
    second = matches([usual] * 5 + [near], [[3, 1, 2, 0]] * 6)
    found = combine_views({WHOLE: first, "other": second}, slice(0, 3), training=2)
    assert found.view(3) == WHOLE and found.view(5) == "other"
    assert found.images.tolist()[3] == 0 and found.images.tolist()[5] == 3
    assert float(found.scores[4]) == pytest.approx(float(found.scores[0])) and float(found.scores[3]) > 3
    assert float(found.training[3]) == pytest.approx(1 - 0.06**2 / 2) == float(found.whole[3])


def test_the_correlation_with_training_images_leaves_held_out_ones_out() -> None:
    found = combine_views({WHOLE: matches([[0.1, 0.5, 0.6]] * 3, [[4, 1, 5]] * 3)}, slice(0, 3), training=2)
    assert float(found.whole[0]) == pytest.approx(0.995) and float(found.training[0]) == pytest.approx(0.875)


def test_features_are_compared_over_all_ways_without_the_own_patient() -> None:
    pool = torch.tensor([[0.0, 0], [1, 0], [5, 5], [9, 9]])
    turned = [pool, pool + torch.tensor([0.0, 3])]
    found = match_features(torch.tensor([[1.0, 3]]), turned, torch.tensor([0, 0, 1, 2]), torch.tensor([-1]))
    assert found.images.tolist() == [[1, 2]] and found.orientations[0, 0] == 1
    assert found.distances[0].tolist() == pytest.approx([0, 20**0.5], abs=1e-3)
    without = match_features(torch.tensor([[1.0, 3]]), turned, torch.tensor([0, 0, 1, 2]), torch.tensor([0]))
    assert without.images.tolist() == [[2, 3]]


def test_hits_fall_to_the_side_of_the_patient_that_is_near() -> None:
    copies = made_copies(1, unseen=10, slices=4, copied=12)
    trained, heldout = copies.hits(copies.synthetic)
    assert trained[40:].all() and not heldout[40:].any() and int(trained[:40].sum()) <= 2
    swapped = dataclasses.replace(copies, trained=~copies.trained)
    assert torch.equal(swapped.hits(copies.synthetic)[1], trained)


def test_the_threshold_lies_between_real_images_and_planted_copies() -> None:
    copies = made_copies(1)
    real, planted = float(copies.usual[1]), float(copies.planted["noisy"].scores.quantile(0.1))
    assert real < copies.threshold < planted
    assert copies.threshold == pytest.approx((float(copies.usual[1]) * planted) ** 0.5)  # 55 patients: rank 2
    blind = made_copies(1, noise=2.0)
    assert blind.threshold >= float(blind.usual[1]) and blind.noticed()["noisy"] < 0.5


def test_some_images_of_each_patient_are_looked_up() -> None:
    patients = torch.tensor([0, 0, 1, 2, 3, 3])  # three training images, three of held-out patients
    assert choose_reference(patients, 3, 2).tolist() == [0, 3]
    assert choose_reference(patients, 3, 4).tolist() == [0, 2, 3, 4]
    assert choose_reference(patients, 3, 5).tolist() == [0, 1, 2, 3, 4]
    assert choose_reference(patients, 3, 99).tolist() == [0, 1, 2, 3, 4, 5]
    chosen = choose_reference(torch.arange(1020), 1000, 600)
    assert len(chosen) == 600 and chosen[-20:].tolist() == list(range(1000, 1020))


def test_each_kind_of_copy_is_what_its_name_says() -> None:
    images = pictures(6, 0)
    found = plant_copies(images, make_rng(0, "planted"))
    assert list(found) == [
        "exact",
        "noisy",
        "flipped",
        "shifted",
        "zoomed",
        "rotated",
        "gray_inverted",
        "halves",
    ]
    assert all(part.shape == images.shape and part.dtype == images.dtype for part in found.values())
    assert torch.equal(found["flipped"].flip(-1), images) and torch.equal(found["gray_inverted"], -images)
    assert torch.equal(found["halves"][0, ..., :16], images[0, ..., :16])
    assert torch.equal(found["halves"][0, ..., 16:], images[1, ..., 16:])
    assert float((found["noisy"] - images).std()) == pytest.approx(0.1, rel=0.05)
    for name in ("shifted", "zoomed", "rotated"):
        assert not torch.allclose(found[name], images, atol=0.05)


def test_sets_that_are_no_copies() -> None:
    training, heldout = pictures(30, 0), pictures(10, 1)
    found = harmless_images(training, heldout, 8, make_rng(0, "harmless"))
    numbers = {name: len(part) for name, part in found.items()}
    assert numbers == {"mean_image": 1, "pca": 8, "blurred_heldout": 8}
    assert torch.allclose(found["mean_image"][0], training.mean(0), atol=1e-6)
    samples = draw_principal(training, 400, make_rng(0, "pca")).flatten(1)
    values = training.flatten(1)
    axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)[2]
    spread = [((part - values.mean(0)) @ axes[:10].T).std(0) for part in (samples, values)]
    assert torch.allclose(spread[0][:5], spread[1][:5], rtol=0.15) and float(spread[0][5:].max()) < 0.3
    assert float(blur(heldout).std()) < float(heldout.std())

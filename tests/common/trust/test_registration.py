from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.metrics.features import pattern_vectors
from common.metrics.nearest_neighbors import find_nearest
from common.rng import make_rng
from common.trust import registration
from common.trust.registration import (
    VIEWS,
    WAYS,
    WHOLE,
    Matches,
    NearestOfAll,
    Registration,
    all_moved,
    blurred,
    harmless,
    moved,
    nearest_of_patients,
    planted_copies,
    principal_samples,
    shifted,
    shifts_up_to,
    turned,
    window,
)
from tests.common.trust.made_textures import noise, pictures

NOBODY = torch.tensor([-1])
STILL = torch.zeros(1)


@pytest.fixture(scope="module")
def search() -> Registration:
    """Among 24 pictures of 12 patients."""
    return Registration(pictures(24, 0), torch.arange(24) // 2, 1)


def pose(scale: float = 1.0, degrees: float = 0.0, down: float = 0.0, across: float = 0.0) -> list[Tensor]:
    return [torch.tensor([value]) for value in (math.log(scale), degrees, down, across)]


def relative(found: Matches) -> float:
    """The nearest patient's distance as a multiple of the next ones'."""
    return float(found.distances[0, 0] / found.distances[0, 2:].mean())


@pytest.mark.parametrize(
    "change",
    [
        pose(),
        pose(down=1 / 16, across=-1 / 16),
        pose(0.8),
        pose(1.25),
        pose(degrees=20),
        pose(degrees=-17),
        pose(1.1, 9, 0.03),
    ],
    ids=["exact", "shifted", "smaller", "larger", "rotated", "back", "all"],
)
def test_a_moved_copy_is_far_nearer_than_others(search: Registration, change: list[Tensor]) -> None:
    copy = moved(pictures(24, 0)[5:6], *change)
    found = search._view(copy, NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and float(found.similarities[0, 0]) > 0.97
    assert relative(found) < 0.35


def test_turned_inverted_and_noisy_copies_too(search: Registration) -> None:
    copy = -turned(pictures(24, 0)[5:6], "rot90") + 0.1 * noise(1, 0)
    found = search._view(copy, NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and WAYS[int(found.ways[0, 0])] == "rot90"
    assert relative(found) < 0.35


def test_halves_are_found_by_their_halves(search: Registration) -> None:
    copy = pictures(24, 0)[5:6].clone()
    copy[..., 16:] = pictures(24, 0)[9:10, ..., 16:]
    found = {view: search._view(copy, NOBODY, view) for view in VIEWS}
    assert found["left"].images[0, 0] == 5 and found["right"].images[0, 0] == 9
    assert relative(found["left"]) < 0.1 and relative(found["right"]) < 0.1 and relative(found["upper"]) > 0.4


def test_other_and_averaged_images_are_near_to_nobody_in_particular(search: Registration) -> None:
    found = search._view(pictures(1, 7), NOBODY, WHOLE)
    assert relative(found) > 0.6
    assert relative(search._view(pictures(24, 0).mean(0, keepdim=True), NOBODY, WHOLE)) > 0.6


def test_the_own_patient_does_not_count(search: Registration) -> None:
    found = search._view(pictures(24, 0)[5:6], torch.tensor([2]), WHOLE)
    owners = found.images[0] // 2
    assert 2 not in owners.tolist() and len(owners.unique()) == len(owners) == registration.NEAREST
    assert float(found.similarities[0, 0]) < 0.95


def test_the_nearest_image_of_each_of_the_nearest_patients() -> None:
    similar = torch.tensor([[0.9, 0.2, 0.8, 0.7, 0.1]])
    patients = torch.tensor([0, 1, 0, 2, 2])
    assert nearest_of_patients(similar, patients, NOBODY).tolist() == [[0, 3]]
    assert nearest_of_patients(similar, patients, torch.tensor([0])).tolist() == [[3, 1]]


def test_many_pairs_are_searched_less_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    references, patients = pictures(24, 0), torch.arange(24) // 2
    assert "zoomed by 0.8 to 1.25" in Registration(references, patients, 10).told
    monkeypatch.setattr(registration, "FULL_SEARCH", 24 * 9)
    few = Registration(references, patients, 10)
    assert "not zoomed" in few.told and len(few._poses(WHOLE)) == 9
    monkeypatch.setattr(registration, "SHIFT_SEARCH", 24 * 9)
    assert "not shifted" in Registration(references, patients, 10).told
    found = few._view(pictures(24, 0)[5:6].flip(-1), NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and relative(found) < 0.2


def test_windows_have_no_corners_and_halves_add_up() -> None:
    whole = window(WHOLE, 16)
    assert whole[0, 0] == 0 and whole[8, 8] == 1
    assert torch.equal(window("left", 16) + window("right", 16), whole)
    assert torch.equal(window("upper", 16) + window("lower", 16), whole)
    assert window("upper", 16)[8:].sum() == 0 and window("left", 16)[:, 8:].sum() == 0


def test_eight_ways_all_different() -> None:
    images = pictures(2, 0)
    ways = [turned(images, way) for way in WAYS]
    assert len({part.numpy().tobytes() for part in ways}) == 8
    assert torch.equal(turned(images, "flip_lr"), images.flip(-1))


def test_the_nearest_over_all_ways_as_by_brute_force() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turned(queries[2:3], "rot90")[0]
    gathered = NearestOfAll()
    vectors = pattern_vectors(references)
    for way, part in all_moved(queries, pattern_vectors):
        gathered.add(part, vectors, way)
    found = gathered.found
    moved = [part for _, part in all_moved(queries, pattern_vectors)]
    every = torch.stack([find_nearest(part, vectors)[0][:, 0] for part in moved])
    assert torch.equal(found.distances, every.amin(0))
    assert found.distances[2] == pytest.approx(0, abs=1e-6) and found.indices[2] == 4
    assert WAYS[int(found.ways[2])] == "rot90"
    with pytest.raises(ValueError, match="nothing"):
        NearestOfAll().found  # noqa: B018


def test_shifts_shortest_first_each_once_and_what_they_do() -> None:
    shifts = shifts_up_to(2)
    assert len(set(shifts)) == len(shifts) == 25 and shifts[0] == (0, 0)
    image = torch.arange(12.0).view(1, 1, 3, 4)
    expected = torch.tensor([[1.0, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]])  # down by 1, to the left by 1
    assert torch.equal(shifted(image, (1, -1))[0, 0], expected)


def test_a_copy_that_was_turned_and_shifted_is_found() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turned(shifted(queries[2:3], (-2, 1)), "rot90")[0]
    gathered, still = NearestOfAll(), NearestOfAll()
    vectors = pattern_vectors(references)
    for finder, shifts in ((gathered, shifts_up_to(2)), (still, shifts_up_to(0))):
        for way, part in all_moved(queries, pattern_vectors, shifts):
            finder.add(part, vectors, way)
    assert gathered.found.indices[2] == 4 and WAYS[int(gathered.found.ways[2])] == "rot90"
    assert gathered.found.distances[2] < 0.5 * still.found.distances[2]
    assert bool((gathered.found.distances <= still.found.distances).all())


STILL_PLANTED = torch.zeros(1)


def test_moved_by_hand() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 1, 2] = 1  # up, to the left of the middle
    assert torch.equal(moved(image, STILL_PLANTED, STILL_PLANTED, STILL_PLANTED, STILL_PLANTED), image)
    assert torch.allclose(
        moved(image, STILL_PLANTED, STILL_PLANTED, torch.tensor([1 / 8]), STILL_PLANTED)[..., 0, 2],
        torch.ones(1),
    )
    turned = moved(image, STILL_PLANTED, torch.tensor([90.0]), STILL_PLANTED, STILL_PLANTED)
    assert float((turned - image.rot90(1, (-2, -1))).abs().max()) < 1e-5
    image = torch.zeros(1, 1, 8, 8)
    image[..., 3, 4] = 1
    twice = moved(image, torch.tensor([math.log(2)]), STILL_PLANTED, STILL_PLANTED, STILL_PLANTED)
    assert float(twice.sum()) == pytest.approx(4, rel=0.3)  # four times the area


def test_each_kind_of_copy_is_what_its_name_says() -> None:
    images = pictures(6, 0)
    found = planted_copies(images, make_rng(0, "planted"))
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
    found = harmless(training, heldout, 8, make_rng(0, "harmless"))
    assert {name: len(part) for name, part in found.items()} == {
        "mean_image": 1,
        "pca": 8,
        "blurred_heldout": 8,
    }
    assert torch.allclose(found["mean_image"][0], training.mean(0), atol=1e-6)
    samples = principal_samples(training, 400, make_rng(0, "pca")).flatten(1)
    values = training.flatten(1)
    axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)[2]
    spread = [((part - values.mean(0)) @ axes[:10].T).std(0) for part in (samples, values)]
    assert torch.allclose(spread[0][:5], spread[1][:5], rtol=0.15) and float(spread[0][5:].max()) < 0.3
    assert float(blurred(heldout).std()) < float(heldout.std())

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.trust import registration
from common.trust.registration import (
    HALVES,
    ORIENTATION_NAMES,
    VIEWS,
    WHOLE,
    Matches,
    Registration,
    nearest_of_patients,
    search_grid,
    similarity,
    turn,
    view_window,
    warp,
)
from tests.common.trust.made import noise, pictures

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
    copy = warp(pictures(24, 0)[5:6], *change)
    found = search.match_view(copy, NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and float(found.similarities[0, 0]) > 0.97
    assert relative(found) < 0.35


def test_turned_inverted_and_noisy_copies_too(search: Registration) -> None:
    copy = -turn(pictures(24, 0)[5:6], "rot90") + 0.1 * noise(1, 0)
    found = search.match_view(copy, NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and ORIENTATION_NAMES[int(found.orientations[0, 0])] == "rot90"
    assert relative(found) < 0.35


def test_halves_are_found_by_their_halves(search: Registration) -> None:
    copy = pictures(24, 0)[5:6].clone()
    copy[..., 16:] = pictures(24, 0)[9:10, ..., 16:]
    found = {view: search.match_view(copy, NOBODY, view) for view in VIEWS}
    assert found["left"].images[0, 0] == 5 and found["right"].images[0, 0] == 9
    assert relative(found["left"]) < 0.1 and relative(found["right"]) < 0.1 and relative(found["upper"]) > 0.4


def test_other_and_averaged_images_are_near_to_nobody_in_particular(search: Registration) -> None:
    found = search.match_view(pictures(1, 7), NOBODY, WHOLE)
    assert relative(found) > 0.6
    assert relative(search.match_view(pictures(24, 0).mean(0, keepdim=True), NOBODY, WHOLE)) > 0.6


def test_the_own_patient_does_not_count(search: Registration) -> None:
    found = search.match_view(pictures(24, 0)[5:6], torch.tensor([2]), WHOLE)
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
    assert "zoomed by 0.8 to 1.25" in Registration(references, patients, 10).description
    monkeypatch.setattr(registration, "FULL_SEARCH", 24 * 9)
    few = Registration(references, patients, 10)
    assert "not zoomed" in few.description and len(few._poses(WHOLE)) == 9
    monkeypatch.setattr(registration, "SHIFT_SEARCH", 24 * 9)
    assert "not shifted" in Registration(references, patients, 10).description
    found = few.match_view(pictures(24, 0)[5:6].flip(-1), NOBODY, WHOLE)
    assert found.images[0, 0] == 5 and relative(found) < 0.2


def test_windows_have_no_corners_and_halves_add_up() -> None:
    whole = view_window(WHOLE, 16)
    assert whole[0, 0] == 0 and whole[8, 8] == 1
    assert torch.equal(view_window("left", 16) + view_window("right", 16), whole)
    assert torch.equal(view_window("upper", 16) + view_window("lower", 16), whole)
    assert view_window("upper", 16)[8:].sum() == 0 and view_window("left", 16)[:, 8:].sum() == 0


def test_eight_orientations_all_different() -> None:
    images = pictures(2, 0)
    every = [turn(images, name) for name in ORIENTATION_NAMES]
    assert len({part.numpy().tobytes() for part in every}) == 8
    assert torch.equal(turn(images, "flip_lr"), images.flip(-1))


def test_warping_by_hand() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 1, 2] = 1  # up, to the left of the middle
    assert torch.equal(warp(image, STILL, STILL, STILL, STILL), image)
    assert torch.allclose(
        warp(image, STILL, STILL, torch.tensor([1 / 8]), STILL)[..., 0, 2],
        torch.ones(1),
    )
    turned = warp(image, STILL, torch.tensor([90.0]), STILL, STILL)
    assert float((turned - image.rot90(1, (-2, -1))).abs().max()) < 1e-5
    image = torch.zeros(1, 1, 8, 8)
    image[..., 3, 4] = 1
    twice = warp(image, torch.tensor([math.log(2)]), STILL, STILL, STILL)
    assert float(twice.sum()) == pytest.approx(4, rel=0.3)  # four times the area


def test_the_grid_finds_the_best_of_all_poses() -> None:
    """As by brute force, to what 5 bits for 24 poses leave of float32."""
    numbers = torch.Generator().manual_seed(0)
    patterns = torch.nn.functional.normalize(torch.randn(300, 20, generator=numbers))
    transformed = torch.nn.functional.normalize(torch.randn(24, 1100, 20, generator=numbers), dim=2)
    similar, pose = search_grid(patterns, [transformed[:7], transformed[7:]], 24)
    every = (transformed @ patterns.T).abs().permute(2, 1, 0)  # (24, M, N) -> (N, M, 24)
    assert float((similar - every.amax(2)).abs().max()) < 1e-5
    assert float((every.gather(2, pose.long()[..., None])[..., 0] - every.amax(2)).abs().max()) < 1e-5


@pytest.mark.parametrize("view", [WHOLE, HALVES[0]])
def test_similarity_is_the_correlation_of_what_is_covered(view: str) -> None:
    images, other = pictures(3, 0), pictures(3, 1)
    poses = torch.tensor([[0.1, 10, 0.05, 0], [0, 0, 0, 0], [0, 0, 0.7, 0.7]])
    window = view_window(view, 32)
    found = similarity(images.flatten(1), other, poses, window.flatten())
    posed = warp(other, *poses.T)
    ones = torch.ones_like(other)
    inside = torch.nn.functional.grid_sample(
        torch.nn.functional.pad(ones, (1,) * 4)[..., 1:-1, 1:-1], grid_of(poses), align_corners=False
    )
    weights = (window * (inside[:, 0] > 0.999)).double()
    for k in range(2):
        a, b, w = (part.double().flatten().numpy() for part in (images[k], posed[k], weights[k]))
        covariance = np.cov(a, b, aweights=w)
        expected = abs(covariance[0, 1]) / math.sqrt(covariance[0, 0] * covariance[1, 1])
        assert float(found[k]) == pytest.approx(expected, abs=0.02 if k == 0 else 1e-5)
    assert found[2] == 0  # hardly covered


def grid_of(poses: Tensor) -> Tensor:
    points = registration.sampling_points(poses, 32)
    return points.unflatten(2, (32, 32)).permute(0, 2, 3, 1)

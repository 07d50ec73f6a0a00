from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.trust import registration
from common.trust.orientations import WAYS, turned
from common.trust.planted import moved
from common.trust.registration import VIEWS, WHOLE, Matches, Registration, nearest_of_patients, window
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

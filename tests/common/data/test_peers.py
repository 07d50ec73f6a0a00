from __future__ import annotations

from pathlib import Path

import pytest

from common.data.peers import Peers
from common.data.samples import Sample
from common.random import generator


def volume(name: str, depth: int, patient: str = "") -> list[Sample]:
    path = Path(f"{name}.nii.gz")
    return [Sample(path, path, patient or name, index=index) for index in range(depth)]


def drawn(samples: list[Sample], place: int, draws: int = 40) -> set[int | None]:
    peers = Peers(samples)
    return {peers.draw(place, generator(seed)) for seed in range(draws)}


def test_the_partner_lies_at_the_same_relative_height() -> None:
    samples = [*volume("a", 4), *volume("b", 8)]
    assert [drawn(samples, place) for place in range(4)] == [{5}, {7}, {9}, {11}]
    assert [drawn(samples, place) for place in (4, 5, 10, 11)] == [{0}, {0}, {3}, {3}]


def test_all_other_patients_are_drawn_and_never_the_own_one() -> None:
    samples = [*volume("a1", 2, "a"), *volume("a2", 2, "a"), *volume("b", 2), *volume("c", 2)]
    assert drawn(samples, 0) == {4, 6}
    assert drawn(samples, 3) == {5, 7}
    assert drawn(samples, 4) == {0, 2, 6}


def test_pictures_of_a_patient_belong_together() -> None:
    names = [("a", "a_1"), ("a", "a_2"), ("a", "a_3"), ("b", "b_1"), ("b", "b_2"), ("b", "b_3")]
    samples = [Sample(Path(f"{name}.png"), None, patient) for patient, name in names]
    assert [drawn(samples, place) for place in range(6)] == [{3}, {4}, {5}, {0}, {1}, {2}]


def test_a_patient_alone_has_no_partner_but_one_number_is_drawn() -> None:
    random, other = generator(0), generator(0)
    assert Peers(volume("a", 3)).draw(1, random) is None
    other.random()
    assert random.random() == pytest.approx(other.random())

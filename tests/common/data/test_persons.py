from pathlib import Path

import numpy as np

from common.data.persons import join_persons
from common.data.samples import Sample
from common.data.thumbnails import thumbnail


def blocks(seed):
    return np.kron(np.random.default_rng(seed).uniform(0, 1, (8, 8)), np.ones((8, 8))).astype(np.float32)


def sample(patient):
    return Sample(Path(f"{patient}.png"), None, patient)


def test_chains_across_sets_are_one_person_and_within_a_set_nothing_is_joined():
    # x: patients a, b, e; y: c; z: d. a and c share a slice, c and d another; b and e look alike in one set.
    patients, sets, seeds = "abeccd", "xxxyyz", [0, 7, 7, 0, 5, 5]
    thumbnails = np.stack([thumbnail(blocks(seed)) for seed in seeds])
    joined = join_persons([sample(patient) for patient in patients], list(sets), thumbnails)
    assert [item.unit for item in joined] == ["a", "b", "e", "a", "a", "a"]
    assert [item.patient for item in joined] == list(patients)

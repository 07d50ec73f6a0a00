from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

from common.errors import UserError
from common.inference.mixture import MixtureSamples


def test_samples_have_their_numbers_and_no_class() -> None:
    samples = MixtureSamples(5)
    assert [batch["sample"].tolist() for batch in DataLoader(samples, 2)] == [[0, 1], [2, 3], [4]]
    assert samples[0] == {"sample": 0} and samples.drawn_classes() == []
    with pytest.raises(IndexError):
        samples[5]


def test_classes_are_mixed_as_in_the_set_and_a_samples_class_depends_on_its_number_alone() -> None:
    given = [0] * 60 + [2] * 20  # in the order of folders
    whole, few = MixtureSamples(160, given), MixtureSamples(40, given)
    assert [whole.drawn_classes().count(index) for index in (0, 1, 2)] == [120, 0, 40]
    assert 4 <= few.drawn_classes().count(2) <= 16
    assert [few[number] for number in range(40)] == [whole[number] for number in range(40)]
    assert whole[83]["class"] == whole[3]["class"]


def test_a_count_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="num_samples 0: give a whole number of at least 1"):
        MixtureSamples(0)

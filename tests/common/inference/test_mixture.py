from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

from common.inference.mixture import MixtureSamples


def test_numbers_go_on_from_the_first_and_batches_hold_them() -> None:
    samples = MixtureSamples(5, first=7)
    assert [batch["sample"].tolist() for batch in DataLoader(samples, 2)] == [[7, 8], [9, 10], [11]]
    assert "class" not in samples[0]
    with pytest.raises(ValueError, match="without classes"):
        samples.drawn_classes()
    with pytest.raises(IndexError):
        samples[5]


def test_a_samples_class_depends_on_its_number_alone() -> None:
    whole, rest = MixtureSamples(7, [0, 2, 2]), MixtureSamples(3, [0, 2, 2], first=4)
    assert whole.drawn_classes().tolist() == [0, 2, 2, 0, 2, 2, 0]
    assert [rest[index] for index in range(3)] == [whole[4], whole[5], whole[6]]

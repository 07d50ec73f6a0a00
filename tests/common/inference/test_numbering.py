from __future__ import annotations

import pytest

from common.errors import UserError
from common.inference.numbering import BLOCK, SampleNumbers, chosen_classes, class_names_of

NAMES = ["none", "mild", "severe"]


def test_blocks_are_whole_and_begin_at_their_multiples() -> None:
    numbers = SampleNumbers(10, first_sample=BLOCK - 2)
    assert numbers.wanted == range(BLOCK - 2, BLOCK + 8)
    assert [numbers[place]["sample"] for place in range(len(numbers))] == list(range(2 * BLOCK))
    later = SampleNumbers(1, first_sample=3 * BLOCK)
    assert len(later) == BLOCK and later[0] == {"sample": 3 * BLOCK}


def test_classes_take_turns_by_the_number() -> None:
    numbers = SampleNumbers(4, 7, "severe,none", NAMES)
    assert [numbers.class_name(number) for number in numbers.wanted] == ["none", "severe", "none", "severe"]
    assert numbers[7] == {"sample": 7, "class": 0}
    everything = SampleNumbers(6, 0, "all", NAMES)
    assert [everything.class_name(number) for number in range(6)] == NAMES * 2
    assert SampleNumbers(6).class_name(2) == ""


def test_as_the_command_line_gives_them() -> None:
    assert SampleNumbers("3", "4").wanted == range(4, 7)  # type: ignore[arg-type]
    assert chosen_classes(("mild", " none"), NAMES) == [1, 0]
    assert chosen_classes(1, ["0", "1"]) == [1]  # type: ignore[arg-type]


def test_names_are_those_of_the_classes_that_the_network_knows() -> None:
    assert class_names_of(3, {"classes": NAMES}) == NAMES
    assert class_names_of(0, {"classes": ["covid"]}) == []
    assert class_names_of(2, {}) == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_samples": 0}, "num_samples 0: give a whole number of at least 1"),
        ({"num_samples": 2, "first_sample": -1}, "first_sample -1: give a whole number of at least 0"),
        ({"num_samples": 2, "classes": "mild"}, "class mild: this model was trained without classes"),
        (
            {"num_samples": 2, "classes": "mild,bad", "class_names": NAMES},
            "no class bad; the model has none, mild",
        ),
        ({"num_samples": 2, "classes": [], "class_names": NAMES}, "no class chosen"),
    ],
)
def test_what_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SampleNumbers(**settings)  # type: ignore[arg-type]

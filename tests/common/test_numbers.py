from __future__ import annotations

import pytest

from common.errors import UserError
from common.numbers import whole_number


@pytest.mark.parametrize(("value", "number"), [(3, 3), ("12", 12), (" 2 ", 2)])
def test_numbers_and_their_text_are_taken(value: object, number: int) -> None:
    assert whole_number("steps", value, least=2) == number


@pytest.mark.parametrize("value", [1, -3, "-3", "two", 2.5, True, None, "", "2.0", [2]])
def test_others_are_refused_with_the_settings_name(value: object) -> None:
    with pytest.raises(UserError, match=r"^steps .*: give a whole number of at least 2$"):
        whole_number("steps", value, least=2)

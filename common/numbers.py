"""Settings that are whole numbers, as they come from configs and command lines."""

from __future__ import annotations

from typing import Any

from common.errors import UserError


def whole_number(setting: str, value: Any, least: int = 0) -> int:
    """``value`` as an int.

    Args:
        setting: what it is called, for the message.
        value: an int, or digits as text.
        least: smallest value allowed.
    Raises:
        UserError: anything else.
    """
    text = str(value).strip()
    digits = text.removeprefix("-")
    if isinstance(value, (bool, float)) or not (digits.isascii() and digits.isdigit()) or int(text) < least:
        raise UserError(f"{setting} {value}: give a whole number of at least {least}")
    return int(text)

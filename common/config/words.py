"""``true``, ``false`` and ``null`` on the command line mean what they mean in YAML."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigParser

WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def read_words(parser: ConfigParser) -> None:
    """Replaces these texts by what they stand for, in all that the parser has not resolved yet.

    The command line knows Python's spelling only: ``--amp false`` arrives as a text, which is true.
    """
    for item in parser.ref_resolver.items.values():
        config = item.get_config()
        if isinstance(config, dict):
            config.update({key: WORDS[value] for key, value in config.items() if _is_word(value)})
        elif isinstance(config, list):
            config[:] = [WORDS[value] if _is_word(value) else value for value in config]
        elif _is_word(config):
            item.update_config(WORDS[config])


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value in WORDS

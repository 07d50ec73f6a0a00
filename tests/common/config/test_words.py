"""Words of the command line as YAML reads them."""

from __future__ import annotations

from monai.bundle import ConfigParser

from common.config.words import read_words


def test_words_are_replaced_wherever_they_stand() -> None:
    config = {
        "amp": "false",
        "resume": "true",
        "look": "none",
        "copy": "@amp",
        "list": ["true", {"deep": "null"}, "truth"],
        "made": {"_target_": "dict", "a": "false", "b": "$not @resume", "c": {"d": "true"}},
    }
    parser = ConfigParser(config)
    parser.parse()
    read_words(parser)
    assert parser.get_parsed_content("copy") is False
    assert parser.get_parsed_content("list") == [True, {"deep": None}, "truth"]
    assert parser.get_parsed_content("made") == {"a": False, "b": False, "c": {"d": True}}
    assert parser.get_parsed_content("look") == "none"
    assert parser.get("amp") is False and parser.get("resume") is True

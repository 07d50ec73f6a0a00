"""Which keys count as read."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigParser

from common.config.reading import lookup, roots, unread, values_read


def unread_in(config: dict[str, Any], *ids: str) -> list[str]:
    """The unread ids of a config after MONAI's own parsing (macros, relative ids)."""
    parser = ConfigParser(config)
    parser.parse()
    return list(unread(parser.get(), values_read(parser.get(), [*roots(parser.get()), *ids])))


def test_references_are_followed_through_components_and_expressions() -> None:
    config = {
        "lr": 0.1,
        "half": "$@lr / 2",
        "net": {"_target_": "torch.nn.Linear", "in_features": "@width", "out_features": 1},
        "width": 3,
        "training": ["$print(@net, @half)"],
    }
    assert unread_in(config) == []


def test_a_key_without_a_reader_is_found_at_top_level() -> None:
    assert unread_in({"max_epochs": 3, "epocs": 5, "training": ["$print(@max_epochs)"]}) == ["epocs"]


def test_only_the_referenced_part_of_a_plain_dict_is_read() -> None:
    config = {"sizes": {"used": {"deep": 1}, "x": 3}, "training": ["$print(@sizes::used)"]}
    assert unread_in(config) == ["sizes::x"]
    config = {"sizes": {"used": {"deep": 1}, "x": 3}, "training": ["$print(@sizes)"]}
    assert unread_in(config) == []


def test_a_plain_string_with_an_at_sign_is_no_reference() -> None:
    assert unread_in({"who": "someone@lr", "lr": 1, "training": ["$print(@who)"]}) == ["lr"]


def test_other_run_lists_and_required_properties_are_roots() -> None:
    config = {"dataset_dir": "data", "a": 1, "training": ["$print(1)"], "other": ["$print(@a)"]}
    assert unread_in(config) == []


def test_aliases_and_macros_count_as_read() -> None:
    config = {
        "base": {"width": 3, "depth": [1, 2]},
        "net": "%base",
        "training": ["$print(@net)"],
        "run": "$@training",
        "_desc_": "a note",
        "_meta_": {"version": "1"},
    }
    assert unread_in(config) == []


def test_requirements_and_relative_references_are_read() -> None:
    config = {
        "ready": "$print('ready')",
        "part": {"a": 1, "net": {"_target_": "dict", "_requires_": "@ready", "b": "@##a"}},
        "training": ["$print(@part::net)"],
    }
    assert unread_in(config) == []


def test_lookup_of_absent_ids_never_equals_a_value() -> None:
    config = {"a": [1, {"b": None}]}
    assert lookup(config, "a::1::b") is None
    missing = lookup(config, "a::7")
    assert missing is lookup(config, "c") is lookup(config, "a::x") is not None

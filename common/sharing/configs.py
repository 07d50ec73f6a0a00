"""A bundle's configs as they are shared: the YAML, and the same as JSON, which `monai.bundle.load` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.errors import UserError

REFERENCE = re.compile(r"@(\w+)")


def as_json(config: Mapping[str, Any], file: Path) -> str:
    """A config as JSON, expressions and references as they are.

    JSON's keys are texts: a mapping with others, such as label values, becomes an expression that gives it.

    Raises:
        UserError: it holds something that JSON cannot say (a date, infinity, a reference beside such keys).
    """
    try:
        writable = _with_text_keys(dict(config))
        text = json.dumps(writable, indent=4, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: cannot be written as JSON ({error}); write the value in quotes") from error
    if json.loads(text) != writable:
        raise UserError(f"{file}: JSON would change it; write its values in quotes")
    return text + "\n"


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_text_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    if all(isinstance(key, str) for key in value):
        return {key: _with_text_keys(item) for key, item in value.items()}
    if any(sign in repr(value) for sign in "@$%"):
        raise ValueError(f"{value} has keys that are no texts, and expressions")
    return f"${value!r}"


def read_config(file: Path) -> dict[str, Any]:
    """A YAML or JSON config, nothing in it evaluated."""
    return dict(ConfigParser.load_config_file(str(file)))


def with_network(config: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """A training config whose network is the one that the shipped weights belong to.

    `monai.bundle.load` builds the network of ``train.json`` and copies the weights that fit, the others it
    leaves at random without an error: a recipe for another size would give a wrong network.

    Args:
        config: with ``network_def``.
        network: ``{"target", "arguments"}`` as in ``models/model.json``.
    Returns:
        The config with the arguments of the weights; where an argument is ``@KEY``, KEY is set instead, so
        that everything else that reads it follows.
    """
    changed = dict(config)
    before = changed.get("network_def") or {}
    notes = {key: value for key, value in before.items() if key.startswith("_") and key.endswith("_")}
    definition: dict[str, Any] = {**notes, "_target_": network["target"]}
    for name, value in network["arguments"].items():
        setting = REFERENCE.fullmatch(str(before.get(name)))
        if setting and setting[1] in changed:
            changed[setting[1]] = value
            definition[name] = before[name]
        else:
            definition[name] = value
    changed["network_def"] = definition
    return changed

"""Every name that a configuration takes from a module exists, also where other tests bypass it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in (ROOT / "bundles").glob("*/configs/**/*.yaml") if not path.is_symlink())
IMPORT = re.compile(r"^\$import (?P<module>[\w.]+)(?: as (?P<alias>\w+))?$")
STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
NAME = re.compile(r"(?<![\w.@#])(\w+)((?:\.\w+)+)")


def read_strings(value: Any) -> Iterator[str]:
    """All strings of a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "_target_":
                yield f"_target_ {item}"
            else:
                yield from read_strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from read_strings(item)


def read_imports(path: Path) -> dict[str, str]:
    """Alias -> module of the file's imports."""
    found = {}
    for line in (yaml.safe_load(path.read_text()) or {}).get("imports", []):
        if match := IMPORT.match(line):
            found[match["alias"] or match["module"]] = match["module"]
    return found


def missing_names(path: Path) -> list[str]:
    """What the file names and no module has; an overlay names what any config of its bundle imports."""
    aliases: dict[str, str] = {}
    for other in sorted(path.parents[0].rglob("*.yaml")):
        aliases |= read_imports(other)
    aliases |= read_imports(path)
    missing = []
    for text in read_strings(yaml.safe_load(path.read_text())):
        if text.startswith("_target_ "):
            target = text.removeprefix("_target_ ")
            if target.startswith(("common.", "bundles.")) and locate(target) is None:
                missing.append(target)
        elif text.startswith("$") and not text.startswith("$import"):
            for alias, dotted in NAME.findall(STRING.sub("", text)):
                if alias in aliases:
                    missing += [f"{alias}{dotted}"] * (not has_attribute(aliases[alias], dotted))
    return missing


def has_attribute(module: str, dotted: str) -> bool:
    """Whether the dotted name stands in the module."""
    value: Any = import_module(module)
    for name in dotted.strip(".").split("."):
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_names_of_a_config_are_there(path: Path) -> None:
    assert missing_names(path) == []


def test_a_name_that_moved_away_is_found(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        "imports:\n- $import common.data.phantoms as phantoms\ndata: $phantoms.ensure_phantoms(@root)\n"
        "loss:\n  _target_: common.losses.adversarial.no_such_loss\n"
    )
    assert missing_names(config) == ["phantoms.ensure_phantoms", "common.losses.adversarial.no_such_loss"]

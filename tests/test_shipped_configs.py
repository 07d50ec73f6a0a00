"""The configs in the tree: the check that every run begins with, and every name taken from a module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.config import check_config
from common.paths import repository_root

RUN_IDS = ("training", "evaluating", "inference")
CONFIGS = sorted(file for file in repository_root().glob("bundles/*/configs/*.yaml") if not file.is_symlink())
EACH_CONFIG = pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")

LOCATOR = ConfigParser().locator  # of MONAI's components: it looks through all of MONAI once
load = cache(ConfigParser.load_config_file)


def is_overlay(file: Path) -> bool:
    """Whether a config only changes another: it imports nothing itself, or adds to the other's imports."""
    return "imports" not in load(file)


def with_base(file: Path) -> list[Path]:
    """A config after those that its first lines say it is an overlay on, if it is one."""
    if not is_overlay(file):
        return [file]
    said = re.search(r"^#.*\boverlay on ((?:\w+\.yaml|,? and |, )+)", file.read_text(), re.I | re.M)
    bases = re.findall(r"\w+\.yaml", said[1]) if said else []
    assert bases, f"{file}: say what it is an overlay on"
    return [*(file.parent / base for base in bases), file]


def check(config: dict[str, Any]) -> None:
    """What a run begins with, macros replaced."""
    parser = ConfigParser(config)
    parser.locator = LOCATOR
    parser.parse()
    check_config(parser, [run_id for run_id in RUN_IDS if run_id in config] + ["seed"])


@EACH_CONFIG
def test_nothing_in_a_shipped_config_is_unread(file: Path) -> None:
    check(ConfigParser.load_config_files([str(path) for path in with_base(file)]))


@pytest.mark.parametrize(
    "file",
    [file for file in CONFIGS if not is_overlay(file)],
    ids=lambda file: f"{file.parts[-3]}-{file.stem}",
)
def test_every_setting_may_be_overridden(file: Path) -> None:
    for key, value in load(file).items():
        if isinstance(value, (dict, list)) or key[0] == "_" or key in ("run", "info"):
            continue
        check({**deepcopy(load(file)), key: 1})


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
    for line in load(path).get("imports", []):
        if match := IMPORT.match(line):
            found[match["alias"] or match["module"]] = match["module"]
    return found


def missing_names(path: Path) -> list[str]:
    """What the file names and no module has; an overlay names what any config of its bundle imports."""
    aliases: dict[str, str] = {}
    for other in sorted(path.parent.rglob("*.yaml")):
        aliases |= read_imports(other)
    aliases |= read_imports(path)
    missing = []
    for text in read_strings(load(path)):
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


@EACH_CONFIG
def test_the_names_of_a_config_are_there(file: Path) -> None:
    assert missing_names(file) == []


def test_a_name_that_moved_away_is_found(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        "imports:\n- $import common.data.phantoms as phantoms\ndata: $phantoms.ensure_phantoms(@root)\n"
        "loss:\n  _target_: common.losses.adversarial.no_such_loss\n"
    )
    assert missing_names(config) == ["phantoms.ensure_phantoms", "common.losses.adversarial.no_such_loss"]


@pytest.mark.parametrize(
    ("bundle", "setting", "trained", "otherwise"),
    [("pix2pix_covid", "empty_masks", "keep", "drop"), ("patchgan_cardiac", "min_pixels", 0, 1)],
)
def test_slices_are_chosen_as_in_training(bundle: str, setting: str, trained: Any, otherwise: Any) -> None:
    """Evaluation chooses slices as the model's training did, as far as its record says."""
    parser = ConfigParser()
    parser.read_config(repository_root() / "bundles" / bundle / "configs" / "evaluate.yaml")
    assert parser["data"][setting] == f"@{setting}"
    for info, expected in (({setting: trained}, trained), ({}, otherwise)):
        parser["info"] = info
        parser.parse(reset=True)
        assert parser.get_parsed_content(setting) == expected

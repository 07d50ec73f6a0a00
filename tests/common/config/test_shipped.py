"""The configs in the tree against the check that every run begins with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.config import check_config
from common.paths import repository_root

RUN_IDS = ("training", "evaluating", "inference")
CONFIGS = sorted(repository_root().glob("bundles/*/configs/*.yaml"))


def parsed(*files: Path) -> ConfigParser:
    """The config as a run sees it, macros replaced."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.parse()
    return parser


def settings(file: Path) -> list[str]:
    """The top-level keys of a config that a user may set to a plain value."""
    config = ConfigParser.load_config_file(file)
    return [key for key, value in config.items() if not isinstance(value, (dict, list)) and key[0] != "_"]


def is_overlay(file: Path) -> bool:
    """Whether a config only changes another: it imports nothing itself, or adds to the other's imports."""
    return "imports" not in ConfigParser.load_config_file(file)


def with_base(file: Path) -> list[Path]:
    """A config after those that its first lines say it is an overlay on, if it is one."""
    if not is_overlay(file):
        return [file]
    said = re.search(r"^#.*\boverlay on ((?:\w+\.yaml|,? and |, )+)", file.read_text(), re.I | re.M)
    bases = re.findall(r"\w+\.yaml", said[1]) if said else []
    assert bases, f"{file}: say what it is an overlay on"
    return [*(file.parent / base for base in bases), file]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_nothing_in_a_shipped_config_is_unread(file: Path) -> None:
    parser = parsed(*with_base(file))
    check_config(parser, [run_id for run_id in RUN_IDS if run_id in parser] + ["seed"])


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_every_setting_may_be_overridden(file: Path) -> None:
    if is_overlay(file):
        pytest.skip("an overlay is overrides itself")
    for key in settings(file):
        if key in ("run", "info"):
            continue
        parser = ConfigParser()
        parser.read_config(str(file))
        parser.update({key: 1})
        parser.parse()
        check_config(parser, [run_id for run_id in RUN_IDS if run_id in parser] + ["seed"])

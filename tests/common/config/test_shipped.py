"""The configs in the tree against the check that every run begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.config.checks import check_config
from common.paths import repository_root

RUN_IDS = ("training", "evaluating", "inference")
CONFIGS = sorted(repository_root().glob("bundles/*/configs/*.yaml"))


def parsed(*files: Path) -> ConfigParser:
    """The config as a run sees it, macros replaced."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.parse()
    return parser


def is_overlay(file: Path) -> bool:
    """Whether a config only changes train.yaml: it does not bring its own way to the code."""
    return "on_path" not in ConfigParser.load_config_file(file)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_nothing_in_a_shipped_config_is_unread(file: Path) -> None:
    files = [file.parent / "train.yaml", file] if is_overlay(file) else [file]
    parser = parsed(*files)
    check_config(parser, [run_id for run_id in RUN_IDS if run_id in parser] + ["seed"])

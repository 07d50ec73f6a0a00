"""Evaluation chooses slices as the model's training did, as far as its record says."""

from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.paths import repository_root


@pytest.mark.parametrize(
    ("bundle", "setting", "trained", "otherwise"),
    [("pix2pix_covid", "empty_masks", "keep", "drop"), ("patchgan_cardiac", "min_pixels", 0, 1)],
)
def test_slices_are_chosen_as_in_training(bundle: str, setting: str, trained: Any, otherwise: Any) -> None:
    parser = ConfigParser()
    parser.read_config(str(repository_root() / "bundles" / bundle / "configs" / "evaluate.yaml"))
    assert parser["data"][setting] == f"@{setting}"
    for info, expected in (({setting: trained}, trained), ({}, otherwise)):
        parser["info"] = info
        parser.parse(reset=True)
        assert parser.get_parsed_content(setting) == expected

"""The overlay of the README that adds two MONAI transforms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.transforms import RandAdjustContrastd, RandAffined, RandGaussianNoised

from common.data.replay import flatten_transforms
from common.files import read_json
from tests.bundles.pix2pix_covid.case import CASE, CONFIGS
from tests.bundles.runs import forked


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The file as the README has it."""
    readme = (CASE.root / "docs" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n# my_transforms\.yaml\n(.*?)```", readme, re.DOTALL)
    assert block.count("\n") == 9
    path = tmp_path / "my_transforms.yaml"
    path.write_text(block)
    return path


def test_the_readmes_overlay_adds_transforms_and_trains(overlay: Path, data: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([CONFIGS / "train.yaml", overlay])
    kinds = [type(step) for step in flatten_transforms(parser.get_parsed_content("augmentation"))]
    assert kinds[0] is RandAffined and kinds[2:] == [RandGaussianNoised, RandAdjustContrastd]
    files = str([str(CONFIGS / "train.yaml"), str(overlay)])
    parts = CASE.training(data, tmp_path / "run")
    parts[parts.index("--config_file") + 1] = files
    run = forked(parts, tmp_path / "log")
    assert run.code == 0, run.err
    recorded = read_json(tmp_path / "run" / "models" / "model.json")["preprocessing"]
    assert [entry["target"].split(".")[-1] for entry in recorded] == [
        *("LoadSliced", "WindowHUd", "FitSquared", "StandardizeIntensityd", "ScaleIntensityRanged")
    ]

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from common.config.description import component_description
from common.errors import UserError

CONFIG = {
    "imports": ["$import common.config as config"],
    "width": 4,
    "net": {
        "_target_": "torch.nn.Linear",
        "in_features": "@width",
        "out_features": "$@width * 2",
        "bias": False,
    },
    "training": ["$config.component_description('net')"],
}


def described(folder: Path, **overrides: object) -> object:
    (folder / "configs").mkdir(exist_ok=True)
    file = folder / "configs" / "train.yaml"
    file.write_text(yaml.safe_dump(CONFIG, sort_keys=False, width=1000))
    workflow = ConfigWorkflow(str(file), run_id="training", workflow_type=None, **overrides)
    workflow.initialize()
    (found,) = workflow.run()
    return found


def test_target_and_resolved_arguments_are_plain_data(tmp_path: Path) -> None:
    arguments = {"in_features": 4, "out_features": 8, "bias": False}
    found = described(tmp_path)
    assert found == {"target": "torch.nn.Linear", "arguments": arguments}
    assert json.loads(json.dumps(found)) == found


def test_overrides_count(tmp_path: Path) -> None:
    found = described(tmp_path, width=3, **{"net#bias": True})
    assert found == {
        "target": "torch.nn.Linear",
        "arguments": {"in_features": 3, "out_features": 6, "bias": True},
    }


def test_outside_of_a_run_it_says_so() -> None:
    with pytest.raises(UserError, match="no bundle run is going on"):
        component_description("net")

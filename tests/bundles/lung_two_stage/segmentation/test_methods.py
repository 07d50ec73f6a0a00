from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.segmentation.methods import EmptyMask, named, refuse_seen, with_baselines
from bundles.lung_two_stage.segmentation.predicting import SegmentationMethod
from common.data.intensity import Window
from common.data.samples import Sample
from common.errors import UserError
from tests.bundles.lung_two_stage.segmentation.made import Brightness, Told, ball_mask, scan_of


def test_baselines_come_last() -> None:
    mine = SegmentationMethod("mine", Brightness(), Window(-1000, 400))
    names = [method.name for method in with_baselines([Told("rival", {}), mine, mine])]
    assert names == ["rival", "mine", "mine", "untrained mine", "empty mask"]
    scan = scan_of(ball_mask((2, 4, 4), np.s_[0:1, 1:3, 1:3]))
    assert EmptyMask().candidates(scan) == [] and not EmptyMask().masks(scan).any()


def test_models_have_names() -> None:
    assert named(None, "a/model.pt") == {"this method": "a/model.pt"}
    assert named({"U-Net": "b"}, "a") == {"U-Net": "b"}
    with pytest.raises(UserError, match="give names and files"):
        named("b", "a")  # type: ignore[arg-type]


def test_models_are_not_evaluated_on_what_they_learned_from(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(
        json.dumps({"splits": {"train": ["a"], "val": ["b"], "test": ["c"]}})
    )
    records = {name: Sample(tmp_path / name, None, name) for name in "abc"}
    models = {"mine": tmp_path / "model.pt", "unknown": tmp_path / "other.pt"}
    refuse_seen(models, [records["c"]])
    for name in "ab":
        with pytest.raises(UserError, match=f"was trained with patient {name}"):
            refuse_seen(models, [records["c"], records[name]])

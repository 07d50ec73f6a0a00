"""Shipped weights on real patients: better than the mean image, and the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.files import read_json
from common.paths import repository_root
from tests.bundles.runs import fingerprints, forked

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
BUNDLES = repository_root() / "bundles"
HELD_OUT: dict[str, tuple[str, dict[str, str]]] = {
    "pix2pix_covid": ("covid_lesions", {"data#parts": "[train, val]", "parts": "$dict(val=@data.val)"}),
    "patchgan_cardiac": ("acdc", {"data#parts": "[train, val]", "parts": "$dict(val=@data.val)"}),
    "dcgan_covid": ("lung_slices_hu", {"held_out": "$@data.val"}),
}
"""Real data, and the settings that evaluate validation patients: test patients are for the model card."""
BETTER = {"lower": lambda ours, theirs: ours < theirs, "higher": lambda ours, theirs: ours > theirs}


@pytest.fixture(params=sorted(HELD_OUT))
def name(request: pytest.FixtureRequest) -> str:
    if not (BUNDLES / request.param / "models" / "model.pt").is_file():
        pytest.skip(f"{request.param} ships no weights")
    return str(request.param)


def test_they_beat_the_mean_image_and_draw_the_same_twice(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    """FID and KID of real patients; of conditional models the faithfulness to the condition, too."""
    folder, settings = HELD_OUT[name]
    config = BUNDLES / name / "configs" / "evaluate.yaml"
    metrics: list[dict[str, Any]] = []
    for run in ("first", "second"):
        given = {"dataset_dir": str(shared_data / folder), "output_dir": str(tmp_path / run), **settings}
        if name == "patchgan_cardiac":
            given["store_dir"] = str(tmp_path / "slices")
        parts = [word for key, value in given.items() for word in (f"--{key}", value)]
        model = ["--ckpt_path", str(BUNDLES / name / "models" / "model.pt")]
        result = forked(["run", "evaluating", "--config_file", str(config), *model, *parts], tmp_path / run)
        assert result.code == 0, result.err
        metrics.append(read_json(tmp_path / run / "eval" / "metrics.json")["metrics"])
    assert metrics[0] == metrics[1]
    pictures = [
        {
            Path(path).name: content
            for path, content in fingerprints(tmp_path / run / "eval").items()
            if path.endswith(".png")
        }
        for run in ("first", "second")
    ]
    assert pictures[0] == pictures[1]
    judged = [
        key for key in metrics[0] if key.startswith(("fid_", "excess_kid_")) or key.endswith("_faithfulness")
    ]
    assert len(judged) == (2 if name == "dcgan_covid" else 3)
    for key in judged:
        metric = metrics[0][key]
        assert BETTER[metric["better"]](metric["mean"], metric["baselines"]["mean_image"]["mean"]), key

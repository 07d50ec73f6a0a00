"""Table II: rows, seeds, baselines, files; the classifiers at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bundles.lung_two_stage.generation.evaluate import (
    CropClassifier,
    GeneratorComparison,
    NoduleClassifier,
    available_classifiers,
    held_out_bank,
    table_of,
)
from common.errors import UserError
from common.files import read_json, write_json
from common.metrics.bootstrap import Value
from tests.bundles.lung_two_stage.generation.made import SIZE, made_nodules, make_model
from tests.bundles.lung_two_stage.generation.test_select import Pixels


class Brightness:
    """Two classes: bright in the middle or not, never in doubt."""

    name = "brightness"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        bright = (images[:, 0, SIZE // 2, SIZE // 2] > 0).float()
        return torch.stack([bright, 1 - bright], dim=1)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodules of each of forty patients: enough are held out, of enough patients."""
    patients = [f"P{number:02}" for number in range(40)]
    return made_nodules(each=2, patients=patients).save(tmp_path_factory.mktemp("banks") / "nodules")


def test_the_table(banks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(make_model(tmp_path / str(seed), seed=seed)) for seed in range(3)]
    models = {"ours": paths[:2], "other": paths[2]}
    compared = GeneratorComparison(models, banks, Pixels(), [Brightness()], resamples=10)
    result = compared.run(tmp_path / "eval", {"seed": 0})
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        *("metrics.json", "table.txt", "gallery.png")
    }
    methods = result["methods"]
    assert {name: len(row["fid_pixels"]) for name, row in methods.items()} == {
        **{"ours": 2, "other": 1, "real real": 1, "mean image": 1, "blurred real": 1}
    }
    excess = {name: row["excess_kid_pixels"][0]["mean"] for name, row in methods.items()}
    assert (excess["real real"], excess["blurred real"]) == (pytest.approx(0), pytest.approx(1))
    assert min(excess["ours"], excess["other"]) > 1 and result["held_out_patients"] >= 4
    fid = {name: row["fid_pixels"][0]["mean"] for name, row in methods.items()}
    assert fid["real real"] < min(fid["ours"], fid["other"])
    scores = {name: row["is_brightness"][0]["mean"] for name, row in methods.items()}
    assert scores["mean image"] == pytest.approx(1) and 1.9 < scores["real real"] <= 2
    assert methods["real real"]["coverage"][0]["mean"] > methods["ours"]["coverage"][0]["mean"]
    table = (tmp_path / "eval" / "table.txt").read_text()
    assert table.strip() in capsys.readouterr().out
    assert table.splitlines()[0].split() == [
        *("method", "is_brightness", "fid_pixels", "kid_pixels", "excess_kid_pixels"),
        *("coverage", "copies_by_features", "models"),
    ]
    assert "±" in table.splitlines()[2] and "±" not in table.splitlines()[3]
    assert read_json(tmp_path / "eval" / "metrics.json") == result


def test_mean_and_spread_by_hand() -> None:
    values = [Value(mean, 0, 1, 5) for mean in (0.1, 0.2, 0.6)]
    assert table_of({"m": {"fid_x": values}}).splitlines()[-1].split() == ["m", "0.300", "±", "0.265", "3"]


def test_models_that_do_not_compare_are_refused(banks: Path, tmp_path: Path) -> None:
    first = str(make_model(tmp_path / "a"))
    other = str(make_model(tmp_path / "b", window_hu=[-1000.0, 200.0]))
    with pytest.raises(UserError, match="another size, window or layer"):
        GeneratorComparison({"a": first, "b": other}, banks, Pixels())
    with pytest.raises(UserError, match=r"c\.pt: no trained model yet"):
        GeneratorComparison({"c": str(tmp_path / "c.pt")}, banks, Pixels())
    with pytest.raises(UserError, match="too few"):
        GeneratorComparison({"a": first}, banks, Pixels(), num_samples=5)
    with pytest.raises(UserError, match="none given"):
        GeneratorComparison({}, banks, Pixels())


def test_a_trained_classifier_judges_by_what_it_learned(tmp_path: Path, work: Path) -> None:
    assert available_classifiers(tmp_path / "model.pt") == []
    torch.manual_seed(0)
    network = CropClassifier(3, widths=[4, 4])
    torch.save(network.state_dict(), tmp_path / "model.pt")
    arguments = {"classes": 3, "widths": [4, 4]}
    target = "bundles.lung_two_stage.generation.evaluate.CropClassifier"
    facts = {
        "classes_by": "diameter",
        "image_size": SIZE,
        "network": {"target": target, "arguments": arguments},
    }
    write_json(tmp_path / "model.json", facts)
    (judge,) = available_classifiers(tmp_path / "model.pt")
    assert isinstance(judge, NoduleClassifier) and judge.name == "nodule_diameter"
    images = torch.randn(4, 1, SIZE, SIZE)
    assert torch.allclose(judge(images), network.eval()(images).softmax(1))
    assert judge(torch.zeros(2, 1, 40, 40)).shape == (2, 3)
    with pytest.raises(UserError, match="at least 2"):
        CropClassifier(1)
    assert held_out_bank(work, "nodules") is None

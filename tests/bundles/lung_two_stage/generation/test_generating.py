"""Banks of real and generated entries: counts, records, refusals, the same files every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.generation import candidates as drawing
from bundles.lung_two_stage.generation import generating, making
from bundles.lung_two_stage.generation.candidates import Candidates, GeneratorModel
from bundles.lung_two_stage.generation.data import BankData
from bundles.lung_two_stage.generation.generating import Wanted, generate
from bundles.lung_two_stage.generation.images import nodule_layer, slice_layer
from bundles.lung_two_stage.generation.layers import GeneratedLayer, LayerSettings, run_layers
from common.data.intensity import WINDOWS
from common.errors import UserError
from common.files import read_json
from common.provenance import Provenance
from tests.bundles.lung_two_stage.generation.made_banks import PATIENTS, SIZE, made_nodules
from tests.bundles.lung_two_stage.generation.made_models import make_model
from tests.bundles.lung_two_stage.generation.test_similarity import Pixels
from tests.bundles.lung_two_stage.made_work import slice_bank
from tests.bundles.runs import fingerprints


class DrawsNodules(GeneratorModel):
    """Draws new made nodules, and first of all two training images."""

    def draw(self, count: int, seed: int, mixture: Any = None) -> Candidates:
        data = self.info["data"]
        fresh = made_nodules(each=-(-count // len(PATIENTS)), seed=seed + 9)
        images = np.concatenate([data.train.images[:2], nodule_layer(fresh, SIZE, WINDOWS["lung"]).images])
        names = [s.category for s in data.train.samples[:2]] + [r.category for r in fresh.records]
        return Candidates(images[:count], names[:count])


def nodule_model(data: BankData) -> DrawsNodules:
    info = {"spacing_mm": 2.5, "window_hu": [-1000, 400], "data": data}
    return DrawsNodules(None, info)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(work: Path) -> BankData:
    return BankData(work / "extraction" / "nodules", "nodules", SIZE, turned=True)


def test_a_bank_of_real_and_generated_nodules(data: BankData, tmp_path: Path) -> None:
    made_by = Provenance("painter", seed=0)
    report = generate(data, nodule_model(data), Wanted(7, 12, 40), Pixels(), tmp_path / "nodules", made_by)
    assert (report["synthetic"], report["bundle"], report["seed"]) == (True, "painter", 0)
    bank = NoduleBank.load(tmp_path / "nodules")
    real, made = (bank.chosen(lambda r, kind=kind: r.origin == kind) for kind in ("real", "generated"))
    assert (len(real), len(made)) == (7, 12)
    assert report["counts"]["drawn"] == 40 and report["counts"]["copies"] >= 2
    assert all(record.patient for record in real.records)
    assert [record.patient for record in made.records] == [""] * 12
    assert sorted(record.category for record in made.records) == ["part_solid"] * 6 + ["solid"] * 6
    similarity = [record.similarity or 0.0 for record in made.records]
    assert similarity == sorted(similarity, reverse=True) and 0 < similarity[-1] <= similarity[0] < 1
    names = [record.name for record in made.records]
    assert len(set(names)) == 12 and not {"generated_0_000000", "generated_0_000001"} & set(names)
    areas = (made.alpha >= 128).sum((1, 2))
    expected = 2 * np.sqrt(areas / np.pi) * 2.5
    assert np.allclose([record.diameter_mm for record in made.records], expected, atol=1e-3)
    assert (tmp_path / "nodules" / "gallery.png").is_file()
    assert read_json(tmp_path / "nodules" / "generation.json") == report


def test_the_same_seed_writes_the_same_files_and_replaces_them(data: BankData, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        generate(data, nodule_model(data), Wanted(3, 4, 20, seed=1), Pixels(), tmp_path / "nodules")
        found.append(fingerprints(tmp_path))
    assert found[0] == found[1] and len(found[0]) == 5


def test_fewer_than_wanted_are_said(data: BankData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generate(data, nodule_model(data), Wanted(2, 50, 20), Pixels(), tmp_path / "nodules")
    assert "of 50 wanted" in caplog.text


def test_nothing_left_is_refused_and_nothing_written(
    data: BankData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making.validity, "are_whole", lambda alpha, real: np.zeros(len(alpha), bool))
    with pytest.raises(UserError, match="none is left \\(20 invalid, 0 copies\\)"):
        generate(data, nodule_model(data), Wanted(0, 5, 20), Pixels(), tmp_path / "nodules")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="nothing is wanted"):
        Wanted(0, 0)


def test_slices_get_lungs_and_those_without_are_left_out(work: Path) -> None:
    real = SliceBank.load(work / "extraction" / "normals")
    fresh = slice_bank(["x", "y", "z"], 1, [0], seed=4)
    images = slice_layer(fresh, 32, WINDOWS["lung"]).images
    images[1] = -1
    model = GeneratorModel(None, {"spacing_mm": 5.0, "window_hu": [-1000, 400]})  # type: ignore[arg-type]
    bank, valid = making.made_slices(Candidates(images, [""] * 3), model, real, 0)
    assert valid.tolist() == [True, False, True]
    assert set(np.unique(bank.lung[0])) == {0, 1, 2} and not bank.lung[1].any() and not bank.nodules.any()
    assert bank.hu.shape == (3, *real.hu.shape[1:])
    kept = making.taken(bank, [2], np.array([0.1, 0.2, 0.34567]))
    assert kept.records[0].similarity == 0.3457 and np.array_equal(kept.hu[0], bank.hu[2])
    assert len(making.joined(making.some(real, 4, 0), kept)) == 5
    assert (
        making.some(real, 4, 0).records == making.some(real, 4, 0).records != making.some(real, 4, 1).records
    )


def test_a_model_draws_the_same_samples_in_any_company(tmp_path: Path) -> None:
    model = GeneratorModel.load(make_model(tmp_path), "train")
    few, many = model.draw(3, 5), model.draw(40, 5)
    assert np.abs(few.images - many.images[:3]).max() < 1e-5
    assert few.categories == ["part_solid", "solid", "part_solid"]
    assert model.draw(10, 5, [1]).categories == ["solid"] * 10
    assert drawing.shipped_or_trained(str(tmp_path), "w").endswith("w/nodules/models/model.pt")


def test_layers_are_refused_before_any_work(work: Path, tmp_path: Path) -> None:
    settings = LayerSettings(Pixels(), tmp_path / "out")
    path = make_model(tmp_path / "model", "normals", 0)
    bank = work / "extraction" / "nodules"
    nodules = GeneratedLayer("nodules", settings, path, bank, Wanted(1, 1))
    with pytest.raises(UserError, match="a model of normals, not of nodules"):
        run_layers([nodules], ["nodules"])
    with pytest.raises(UserError, match="layers lungs: choose of nodules, normals"):
        run_layers([nodules], "nodules,lungs")
    missing = GeneratedLayer("nodules", settings, tmp_path / "no.pt", bank, Wanted(1, 1))
    with pytest.raises(UserError, match=r"no\.pt: no trained model yet; train first: python -m"):
        run_layers([missing], ["nodules"])
    assert Wanted(0, 3).drawn == generating.SEVERAL * 3

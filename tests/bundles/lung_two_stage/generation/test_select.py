"""What counts as a nodule or as lungs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.generation import select
from bundles.lung_two_stage.generation.bank_data import BankData, nodule_layer, slice_layer, turn
from bundles.lung_two_stage.generation.select import (
    Candidates,
    GeneratedLayer,
    GeneratorModel,
    LayerSettings,
    RealSide,
    Resemblance,
    Wanted,
    generate,
    most_similar,
    run_layers,
)
from common.data.intensity import WINDOWS
from common.errors import UserError
from common.files import read_json
from common.provenance import Provenance
from tests.bundles.lung_two_stage.generation.made_banks import PATIENTS, SIZE, made_nodules
from tests.bundles.lung_two_stage.generation.made_models import make_model
from tests.bundles.lung_two_stage.made_work import slice_bank
from tests.bundles.runs import fingerprints


def discs(*radii: float, size: int = 20, row: float = 9.5) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(float)
    return np.stack([255 * (np.hypot(y - row, x - 9.5) < radius) for radius in radii]).astype(np.uint8)


def test_only_the_largest_piece_stays_and_faint_pixels_go() -> None:
    alpha = discs(4)[0]
    noisy = alpha.copy()
    noisy[0, :2], noisy[19] = 255, 12
    assert np.array_equal(select.one_nodule(noisy), alpha)
    assert not select.one_nodule(np.full((8, 8), 12, np.uint8)).any()


def test_nodules_are_as_large_as_real_ones_and_whole() -> None:
    real = discs(3, 6)
    found = select.are_whole(discs(2, 3, 5, 6, 7), real)
    assert found.tolist() == [False, True, True, True, False]
    assert not select.are_whole(discs(4, row=1), real).any()
    assert not select.are_whole(discs(0.1), discs(0.1, 6)).any()


def test_diameters_are_those_of_discs() -> None:
    assert np.allclose(select.diameters_mm(discs(3, 8), 2.0), [12, 32], rtol=0.1)


def test_lungs_are_found_or_not() -> None:
    bank = slice_bank(["a", "b"], 1, [0])
    nothing = np.full_like(bank.hu[:1], 40)
    lungs, found = select.find_lungs(np.concatenate([bank.hu, nothing]), 5.0, False)
    assert found.tolist() == [True, True, False] and set(np.unique(lungs)) == {0, 1, 2}
    sizes = (lungs > 0).sum((1, 2))
    small = bank.lung.copy()
    small[:, 16:] = 0
    assert sizes[0] > 0 and select.have_lungs_as(lungs, lungs[:2]).tolist() == [True, True, False]
    assert not select.have_lungs_as(small, bank.lung).any()


def test_lungs_in_parts_of_the_chest() -> None:
    """No body around them: found by their HU alone, and what has none is not valid."""
    parts = np.full((2, 32, 32), 40, np.int16)
    parts[0, :, :20] = -850
    lungs, found = select.find_lungs(parts, 1.0, False, parts=True)
    assert found.tolist() == [True, False] and lungs[0, :, :20].all() and not lungs[0, :, 22:].any()
    assert not select.find_lungs(parts, 1.0, False)[1].any()


class Pixels:
    """Features: all pixels."""

    name, dimension = "pixels", SIZE * SIZE

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.fixture(scope="module")
def data(work: Path) -> BankData:
    return BankData(work / "extraction" / "nodules", "nodules", SIZE, turned=True)


def test_a_turned_copy_is_one_and_another_patients_nodule_is_as_usual(data: BankData) -> None:
    side = RealSide(data, Pixels())
    copies = np.stack([turn(data.train.images[place], 3) for place in (0, 1)])
    other = made_nodules(seed=5)
    images = np.concatenate([copies, nodule_layer(other, SIZE, WINDOWS["lung"]).images])
    names = [*(data.train.samples[place].category for place in (0, 1)), *(r.category for r in other.records)]
    found = side.resemblance(images, names)
    assert found.copied[:2].all() and found.similarity[:2].tolist() == [1.0, 1.0]
    assert 0.4 < np.median(found.similarity[2:]) < 0.65
    assert found.copied[2:].mean() < 0.35


def test_each_class_is_held_against_itself(data: BankData) -> None:
    side = RealSide(data, Pixels())
    image = data.train.images[:1]
    own, other = data.train.samples[0].category, data.train.samples[1].category
    assert own != other
    assert side.resemblance(image, [own]).similarity[0] == 1
    assert side.resemblance(image, [other]).similarity[0] < 0.9
    assert side.resemblance(image, [""]).similarity[0] == 1


def test_the_most_similar_of_each_class_are_kept_first() -> None:
    found = Resemblance(np.array([0.5, 0.9, 0.3, 0.6, 0.4, 0.2]), np.array([False, True, *[False] * 4]))
    valid = np.array([True, True, True, True, False, True])
    assert most_similar(found, valid, [""] * 6, 2) == [3, 0]
    assert most_similar(found, valid, [""] * 6, 10) == [3, 0, 2, 5]
    assert most_similar(found, valid, ["a", "a", "b", "a", "b", "b"], 3) == [3, 0, 2]
    assert most_similar(found, valid, [""] * 6, 0) == []


class DrawsNodules(GeneratorModel):
    """Draws new made nodules, and first of all two training images."""

    def draw(self, count: int, seed: int, mixture: Any = None) -> Candidates:
        data_generating = self.info["data"]
        fresh = made_nodules(each=-(-count // len(PATIENTS)), seed=seed + 9)
        images = np.concatenate(
            [data_generating.train.images[:2], nodule_layer(fresh, SIZE, WINDOWS["lung"]).images]
        )
        names = [s.category for s in data_generating.train.samples[:2]] + [r.category for r in fresh.records]
        return Candidates(images[:count], names[:count])


def nodule_model(data_generating: BankData) -> DrawsNodules:
    info = {"spacing_mm": 2.5, "window_hu": [-1000, 400], "data": data_generating}
    return DrawsNodules(None, info)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data_generating(work: Path) -> BankData:
    return BankData(work / "extraction" / "nodules", "nodules", SIZE, turned=True)


def test_a_bank_of_real_and_generated_nodules(data_generating: BankData, tmp_path: Path) -> None:
    made_by = Provenance("painter", seed=0)
    report = generate(
        data_generating,
        nodule_model(data_generating),
        Wanted(7, 12, 40),
        Pixels(),
        tmp_path / "nodules",
        made_by,
    )
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


def test_the_same_seed_writes_the_same_files_and_replaces_them(
    data_generating: BankData, tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        generate(
            data_generating,
            nodule_model(data_generating),
            Wanted(3, 4, 20, seed=1),
            Pixels(),
            tmp_path / "nodules",
        )
        found.append(fingerprints(tmp_path))
    assert found[0] == found[1] and len(found[0]) == 5


def test_fewer_than_wanted_are_said(
    data_generating: BankData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate(
        data_generating, nodule_model(data_generating), Wanted(2, 50, 20), Pixels(), tmp_path / "nodules"
    )
    assert "of 50 wanted" in caplog.text


def test_nothing_left_is_refused_and_nothing_written(
    data_generating: BankData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "are_whole", lambda alpha, real: np.zeros(len(alpha), bool))
    with pytest.raises(UserError, match="none is left \\(20 invalid, 0 copies\\)"):
        generate(
            data_generating, nodule_model(data_generating), Wanted(0, 5, 20), Pixels(), tmp_path / "nodules"
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="nothing is wanted"):
        Wanted(0, 0)


def test_slices_get_lungs_and_those_without_are_left_out(work: Path) -> None:
    real = SliceBank.load(work / "extraction" / "healthy_slices")
    fresh = slice_bank(["x", "y", "z"], 1, [0], seed=4)
    images = slice_layer(fresh, 32, WINDOWS["lung"]).images
    images[1] = -1
    model = GeneratorModel(None, {"spacing_mm": 5.0, "window_hu": [-1000, 400]})  # type: ignore[arg-type]
    bank, valid = select.made_slices(Candidates(images, [""] * 3), model, real, 0)
    assert valid.tolist() == [True, False, True]
    assert set(np.unique(bank.lung[0])) == {0, 1, 2} and not bank.lung[1].any() and not bank.nodules.any()
    assert bank.hu.shape == (3, *real.hu.shape[1:])
    kept = select.taken(bank, [2], np.array([0.1, 0.2, 0.34567]))
    assert kept.records[0].similarity == 0.3457 and np.array_equal(kept.hu[0], bank.hu[2])
    assert len(select.joined(select.some(real, 4, 0), kept)) == 5
    assert (
        select.some(real, 4, 0).records == select.some(real, 4, 0).records != select.some(real, 4, 1).records
    )


def test_a_model_draws_the_same_samples_in_any_company(tmp_path: Path) -> None:
    model = GeneratorModel.load(make_model(tmp_path), "train")
    few, many = model.draw(3, 5), model.draw(40, 5)
    assert np.abs(few.images - many.images[:3]).max() < 1e-5
    assert few.categories == ["part_solid", "solid", "part_solid"]
    assert model.draw(10, 5, [1]).categories == ["solid"] * 10
    assert select.shipped_or_trained(str(tmp_path), "w").endswith("w/nodules/models/model.pt")


def test_layers_are_refused_before_any_work(work: Path, tmp_path: Path) -> None:
    settings = LayerSettings(Pixels(), tmp_path / "out")
    path = make_model(tmp_path / "model", "healthy_slices", 0)
    bank = work / "extraction" / "nodules"
    nodules = GeneratedLayer("nodules", settings, path, bank, Wanted(1, 1))
    with pytest.raises(UserError, match="a model of healthy_slices, not of nodules"):
        run_layers([nodules], ["nodules"])
    with pytest.raises(UserError, match="layers lungs: choose of nodules, healthy_slices"):
        run_layers([nodules], "nodules,lungs")
    missing = GeneratedLayer("nodules", settings, tmp_path / "no.pt", bank, Wanted(1, 1))
    with pytest.raises(UserError, match=r"no\.pt: no trained model yet; train first: python -m"):
        run_layers([missing], ["nodules"])
    assert Wanted(0, 3).drawn == select.SEVERAL * 3

"""Which generated nodules and slices are valid, similar and no copies, and the bank of those chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.generation import select
from bundles.lung_two_stage.generation.bank_data import BankData, bank_preprocessing, prepare_images, turn
from bundles.lung_two_stage.generation.select import (
    Candidates,
    GeneratorModel,
    RealReference,
    Selection,
    Similarity,
    most_similar,
    run_selections,
)
from common.data.intensity import WINDOWS
from common.errors import UserError
from common.files import read_json, write_json
from common.provenance import Provenance
from tests.bundles.lung_two_stage.generation.made import PATIENTS, SIZE, made_nodules, make_model
from tests.bundles.lung_two_stage.made_work import slice_bank
from tests.bundles.runs import fingerprints

PREPARED = bank_preprocessing(SIZE, WINDOWS["lung"])


def discs(*radii: float, size: int = 20, row: float = 9.5) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(float)
    return np.stack([255 * (np.hypot(y - row, x - 9.5) < radius) for radius in radii]).astype(np.uint8)


def test_only_the_largest_piece_stays_and_faint_pixels_go() -> None:
    alpha = discs(4)[0]
    noisy = alpha.copy()
    noisy[0, :2], noisy[19] = 255, 12
    assert np.array_equal(select.largest_piece(noisy), alpha)
    assert not select.largest_piece(np.full((8, 8), 12, np.uint8)).any()


def test_nodules_are_as_large_as_real_ones_and_whole() -> None:
    real = discs(3, 6)
    result = select.are_whole(discs(2, 3, 5, 6, 7), real)
    assert result.tolist() == [False, True, True, True, False]
    assert not select.are_whole(discs(4, row=1), real).any()
    assert not select.are_whole(discs(0.1), discs(0.1, 6)).any()


def test_lungs_are_found_or_not() -> None:
    bank = slice_bank(["a", "b"], 1, [0])
    nothing = np.full_like(bank.hu[:1], 40)
    lungs = select.find_lungs(np.concatenate([bank.hu, nothing]), 5.0, False)
    assert lungs.any((1, 2)).tolist() == [True, True, False] and set(np.unique(lungs)) == {0, 1, 2}
    sizes = (lungs > 0).sum((1, 2))
    small = bank.lung.copy()
    small[:, 16:] = 0
    assert sizes[0] > 0 and select.have_lungs_as(lungs, lungs[:2]).tolist() == [True, True, False]
    assert not select.have_lungs_as(small, bank.lung).any()


def test_lungs_in_parts_of_the_chest() -> None:
    """No body around them: found by their HU alone, and what has none is not valid."""
    parts = np.full((2, 32, 32), 40, np.int16)
    parts[0, :, :20] = -850
    lungs = select.find_lungs(parts, 1.0, False, parts=True)
    assert not lungs[1].any() and lungs[0, :, :20].all() and not lungs[0, :, 22:].any()
    assert not select.find_lungs(parts, 1.0, False).any()


class Pixels:
    """Features: all pixels."""

    name, dimension = "pixels", SIZE * SIZE

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.fixture(scope="module")
def data(work: Path) -> BankData:
    return BankData(work / "extraction" / "nodules", "nodules", SIZE, turned=True)


def test_a_turned_copy_is_one_and_another_patients_nodule_is_as_usual(data: BankData) -> None:
    reference = RealReference(data, Pixels())
    copies = np.stack([turn(data.train.images[index], 3) for index in (0, 1)])
    other = made_nodules(seed=5)
    images = np.concatenate([copies, prepare_images(other, PREPARED)])
    names = [*(data.train.samples[index].category for index in (0, 1)), *(r.category for r in other.records)]
    result = reference.similarity(images, names)
    assert result.copied[:2].all() and result.values[:2].tolist() == [1.0, 1.0]
    assert 0.4 < np.median(result.values[2:]) < 0.65
    assert result.copied[2:].mean() < 0.35


def test_each_class_is_held_against_itself(data: BankData) -> None:
    reference = RealReference(data, Pixels())
    image = data.train.images[:1]
    own, other = data.train.samples[0].category, data.train.samples[1].category
    assert own != other
    assert reference.similarity(image, [own]).values[0] == 1
    assert reference.similarity(image, [other]).values[0] < 0.9
    assert reference.similarity(image, [""]).values[0] == 1


def test_the_most_similar_of_each_class_are_kept_first() -> None:
    result = Similarity(np.array([0.5, 0.9, 0.3, 0.6, 0.4, 0.2]), np.array([False, True, *[False] * 4]))
    valid = np.array([True, True, True, True, False, True])
    assert most_similar(result, valid, [""] * 6, 2) == [3, 0]
    assert most_similar(result, valid, [""] * 6, 10) == [3, 0, 2, 5]
    assert most_similar(result, valid, ["a", "a", "b", "a", "b", "b"], 3) == [3, 0, 2]
    assert most_similar(result, valid, [""] * 6, 0) == []


class DrawsNodules(GeneratorModel):
    """Draws new made nodules, and first of all two training images."""

    def draw(self, count: int, seed: int, mixture: Any = None) -> Candidates:
        train = self.info["data"].train
        fresh = made_nodules(each=-(-count // len(PATIENTS)), seed=seed + 9)
        images = np.concatenate([train.images[:2], prepare_images(fresh, PREPARED)])
        names = [s.category for s in train.samples[:2]] + [r.category for r in fresh.records]
        return Candidates(images[:count], names[:count])


def write_bank(data: BankData, folder: Path, *numbers: int, **more: Any) -> dict[str, Any]:
    """A `Selection` of ``real``, ``generated`` and ``candidates`` by a model that draws made nodules."""
    info = {"spacing_mm": 2.5, "window_hu": [-1000, 400], "data": data}
    selection = Selection("nodules", "model.pt", data.dataset_dir, folder, Pixels(), *numbers, **more)
    return selection.write_bank(data, DrawsNodules(None, info), Provenance("painter", seed=0))  # type: ignore[arg-type]


def test_a_bank_of_real_and_generated_nodules(data: BankData, tmp_path: Path) -> None:
    report = write_bank(data, tmp_path / "nodules", 7, 12, 40)
    assert (report["synthetic"], report["bundle"], report["seed"]) == (True, "painter", 0)
    bank = NoduleBank.load(tmp_path / "nodules")
    real, generated = (bank.select(lambda r, kind=kind: r.origin == kind) for kind in ("real", "generated"))
    assert (len(real), len(generated)) == (7, 12)
    assert report["counts"]["drawn"] == 40 and report["counts"]["copies"] >= 2
    assert all(record.patient for record in real.records)
    assert [record.patient for record in generated.records] == [""] * 12
    assert sorted(record.category for record in generated.records) == ["part_solid"] * 6 + ["solid"] * 6
    similarity = [record.similarity or 0.0 for record in generated.records]
    assert similarity == sorted(similarity, reverse=True) and 0 < similarity[-1] <= similarity[0] < 1
    names = [record.name for record in generated.records]
    assert len(set(names)) == 12 and not {"generated_0_000000", "generated_0_000001"} & set(names)
    areas = (generated.alpha >= 128).sum((1, 2))
    expected = 2 * np.sqrt(areas / np.pi) * 2.5
    assert np.allclose([record.diameter_mm for record in generated.records], expected, atol=1e-3)
    assert (tmp_path / "nodules" / "gallery.png").is_file()
    assert read_json(tmp_path / "nodules" / "generation.json") == report


def test_the_same_seed_writes_the_same_files_and_replaces_them(
    data: BankData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = []
    for _ in range(2):
        write_bank(data, tmp_path / "nodules", 3, 50, 20, seed=1)
        files.append(fingerprints(tmp_path))
    assert files[0] == files[1] and len(files[0]) == 5
    assert "of 50 wanted" in caplog.text


def test_nothing_left_is_refused_and_nothing_written(
    data: BankData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "are_whole", lambda alpha, real: np.zeros(len(alpha), bool))
    with pytest.raises(UserError, match="none of 20 candidates is left \\(20 invalid, 0 copies\\)"):
        write_bank(data, tmp_path / "nodules", 0, 5, 20)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="nothing is wanted"):
        Selection("nodules", "model.pt", "bank", "out", Pixels(), 0, 0)


def test_slices_get_lungs_and_those_without_are_left_out(work: Path) -> None:
    real = SliceBank.load(work / "extraction" / "healthy_slices")
    fresh = slice_bank(["x", "y", "z"], 1, [0], seed=4)
    images = prepare_images(fresh, bank_preprocessing(32, WINDOWS["lung"]))
    images[1] = -1
    info = {"spacing_mm": 5.0, "window_hu": [-1000, 400]}
    bank, valid = select.slice_candidates(Candidates(images, [""] * 3), info, real, 0)
    assert valid.tolist() == [True, False, True]
    assert set(np.unique(bank.lung[0])) == {0, 1, 2} and not bank.lung[1].any() and not bank.nodules.any()
    assert bank.hu.shape == (3, *real.hu.shape[1:])
    kept = select.take_similar(bank, [2], np.array([0.1, 0.2, 0.34567]))
    assert kept.records[0].similarity == 0.3457 and np.array_equal(kept.hu[0], bank.hu[2])
    drawn = [select.draw_entries(real, 4, seed) for seed in (0, 0, 1)]
    assert len(drawn[0].concatenate(kept)) == 5
    assert drawn[0].records == drawn[1].records != drawn[2].records


def test_a_model_draws_the_same_samples_in_any_company(tmp_path: Path) -> None:
    model = GeneratorModel.load(make_model(tmp_path), "train")
    few, many = model.draw(3, 5), model.draw(40, 5)
    assert np.abs(few.images - many.images[:3]).max() < 1e-5
    assert few.categories == ["part_solid", "solid", "part_solid"]
    assert model.draw(10, 5, [1]).categories == ["solid"] * 10


def test_models_trained_before_have_layers_by_their_new_name(tmp_path: Path) -> None:
    path = make_model(tmp_path, "healthy_slices", 0)
    write_json(path.with_suffix(".json"), {**read_json(path.with_suffix(".json")), "layer": "normals"})
    assert GeneratorModel.load(path, "train").info["layer"] == "healthy_slices"


def test_layers_are_refused_before_any_work(work: Path, tmp_path: Path) -> None:
    def of(path: Path) -> Selection:
        return Selection("nodules", path, work / "extraction" / "nodules", tmp_path / "out", Pixels(), 0, 3)

    nodules = of(make_model(tmp_path / "model", "healthy_slices", 0))
    with pytest.raises(UserError, match="a model of healthy_slices, not of nodules"):
        run_selections([nodules], ["nodules"])
    with pytest.raises(UserError, match="layers lungs: choose of nodules, healthy_slices"):
        run_selections([nodules], "nodules,lungs")
    with pytest.raises(UserError, match=r"no\.pt: no trained model yet; train first: python -m"):
        run_selections([of(tmp_path / "no.pt")], ["nodules"])
    assert nodules.drawn == select.CANDIDATES_PER_IMAGE * 3

"""The command, on a made set: what it leaves, whose it is, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.extraction.extract import (
    Extraction,
    assign_categories,
    category_names,
    mask_source,
)
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from bundles.lung_two_stage.segmentation.inference import SegmentationMethod
from bundles.lung_two_stage.segmentation.network import DenseUNet
from common.data.datamodules import NoduleData
from common.data.nodules import NoduleScan
from common.errors import UserError
from common.paths import repository_root
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.extraction.made import NODULE_SLICE, spoil, write_scans
from tests.bundles.runs import Run, fingerprints, forked

CONFIG = repository_root() / "bundles" / "lung_two_stage" / "configs" / "extract.yaml"
PATIENTS = [f"ct{letter}" for letter in "abcdefghijkl"]
TINY = {"crop_size": 16, "crop_mm": 56.0, "image_size": 24, "slices_per_nodule": 1, "device": "cpu"}


def by_command(data: Path, output: Path, log: Path, **settings: object) -> Run:
    overrides = {"dataset_dir": data, "output_dir": output, **TINY, **settings}
    return forked(CASE.arguments("extraction", "extract", **overrides), log)


def extract(data: Path, output: Path, **settings: object) -> dict[str, Any]:
    """What the command does, in this process."""
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    for key, value in {"dataset_dir": str(data), **TINY, **settings}.items():
        parser[key] = value
    report: dict[str, Any] = parser.get_parsed_content("extractor").run(output)
    return report


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("scans"), PATIENTS)


@pytest.fixture(scope="module")
def extracted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extracted")
    run = by_command(data, folder / "out", folder / "log")
    assert run.code == 0, run.err
    return folder / "out"


def test_the_banks_hold_what_the_patients_have(extracted: Path) -> None:
    """8 patients to train on, of whom 2 are the enhancer's; each with 1 nodule slice and 3 healthy ones."""
    report = json.loads((extracted / "extraction.json").read_text())
    patients, counts = report["patients"], report["counts"]
    sizes = {part: len(names) for part, names in patients.items()}
    assert sizes["generation"] + sizes["enhancer"] + sizes["test"] < len(PATIENTS)  # some validate
    nodules = NoduleBank.load(extracted / "nodules")
    assert len(nodules) == counts["nodules"] == sizes["generation"]
    assert nodules.hu.shape == (len(nodules), 16, 16) and {r.spacing_mm for r in nodules.records} == {3.5}
    assert {r.category for r in nodules.records} <= {"solid", "spiculated"}
    assert [r.diameter_mm for r in nodules.records] == [pytest.approx(27.36, abs=0.01)] * len(nodules)
    assert (nodules.hu[:, 7:9, 7:9] > -100).all() and (nodules.alpha[:, 7:9, 7:9] == 255).all()
    healthy_slices, others = (
        SliceBank.load(extracted / "healthy_slices"),
        SliceBank.load(extracted / "others"),
    )
    assert len(healthy_slices) == 3 * sizes["generation"] and not healthy_slices.nodules.any()
    assert len(others) == 4 * sizes["enhancer"] and others.nodules.any((1, 2)).sum() == sizes["enhancer"]
    tests = SliceBank.load(extracted / "tests")
    assert (
        tests.nodules.any((1, 2)).sum() == sizes["test"] == len(NoduleBank.load(extracted / "test_nodules"))
    )
    for bank in (healthy_slices, others, tests):
        assert (bank.lung[bank.nodules > 0] == 1).all()  # the right one
        assert all((bank.lung == side).any((1, 2)).all() for side in (1, 2))
        assert {r.spacing_mm for r in bank.records} == {14.0}


def test_nobody_is_in_two_parts(extracted: Path) -> None:
    kinds = {"nodules": NoduleBank, "healthy_slices": SliceBank, "others": SliceBank, "tests": SliceBank}
    result = {name: {r.patient for r in kind.load(extracted / name).records} for name, kind in kinds.items()}
    assert result["nodules"] == result["healthy_slices"]
    assert not result["nodules"] & result["others"] and not result["nodules"] & result["tests"]
    assert not result["others"] & result["tests"]
    report = json.loads((extracted / "extraction.json").read_text())["patients"]
    assert [report["generation"], report["enhancer"], report["test"]] == [
        sorted(result[name]) for name in ("nodules", "others", "tests")
    ]


def test_the_presence_map_is_where_the_nodules_are(extracted: Path) -> None:
    presence, bank = PresenceMap.load(extracted / "presence.npz"), SliceBank.load(extracted / "others")
    assert presence.metadata["nodules"] == len(NoduleBank.load(extracted / "nodules"))
    index = int(bank.nodules.any((1, 2)).argmax())
    assert bank.records[index].name.endswith(f"z{NODULE_SLICE:03d}")
    probable = presence.on_slice(bank.lung[index])
    assert probable[bank.lung[index] == 1].sum() > 0.8
    row, column = np.unravel_index(probable.argmax(), probable.shape)
    assert np.abs(np.argwhere(bank.nodules[index]) - (row, column)).max(1).min() <= 1


def test_the_same_settings_give_the_same_bytes_and_replace_the_earlier_run(
    data: Path, extracted: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "extraction.json").write_text("{}")
    (tmp_path / "out" / "stale.npy").touch()
    extract(data, tmp_path / "out")
    assert list(fingerprints(tmp_path / "out").values()) == list(fingerprints(extracted).values())


def test_healthy_slices_come_from_another_folder_too(data: Path, tmp_path: Path) -> None:
    write_scans(tmp_path / "more", [f"x{number}" for number in range(6)])
    (tmp_path / "more" / "images").rename(tmp_path / "normal")
    report = extract(data, tmp_path / "out", healthy_slices_dir=str(tmp_path / "normal"))
    strangers = {
        part: {name for name in names if name[0] == "x"} for part, names in report["patients"].items()
    }
    assert all(strangers.values()) and sum(map(len, strangers.values())) == len(
        set.union(*strangers.values())
    )
    for bank, part in (("healthy_slices", "generation"), ("others", "enhancer"), ("tests", "test")):
        patients = {record.patient for record in SliceBank.load(tmp_path / "out" / bank).records}
        assert {name for name in patients if name[0] == "x"} == strangers[part]


def test_what_cannot_be_extracted_is_one_line_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no nodules to extract from . scans .* nodules larger than the crop"
    ):
        extract(data, tmp_path / "out", crop_mm=20.0)
    write_scans(tmp_path / "more", ["cta"])
    (tmp_path / "more" / "images").rename(tmp_path / "normal")
    with pytest.raises(UserError, match=r"normal: patient cta is in .* too"):
        Extraction(NoduleData(data, parts=[]), healthy_slices_dir=tmp_path / "normal")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more", "normal"]


def test_a_scan_of_something_else_is_one_line(tmp_path: Path) -> None:
    broken = write_scans(tmp_path / "broken", PATIENTS[:4])
    for path in (broken / "images").iterdir():
        spoil(path, 40)
    with pytest.raises(UserError, match="no lung found"):
        extract(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_windows_stand_for_slices_where_parts_are_wanted(data: Path, tmp_path: Path) -> None:
    extract(data, tmp_path / "out", part_mm=84.0, image_size=16)
    others, healthy_slices = (
        SliceBank.load(tmp_path / "out" / name) for name in ("others", "healthy_slices")
    )
    for bank in (others, healthy_slices):
        assert all(record.part and record.spacing_mm == 5.25 for record in bank.records)
        assert ((bank.lung > 0).mean((1, 2)) > 0.25).all()
    assert not healthy_slices.nodules.any() and others.nodules.any((1, 2)).any()
    assert json.loads((tmp_path / "out" / "extraction.json").read_text())["settings"]["part_mm"] == 84.0


@pytest.mark.slow
@pytest.mark.realdata
def test_real_nodules_are_extracted_with_healthy_slices_from_elsewhere(
    shared_data: Path, tmp_path: Path
) -> None:
    """Crops of LIDC; the only whole scan is that of LUNA16, whose slices without the nodule are normal."""
    data = NoduleData(shared_data / "nodule_volumes", parts=[])
    report = Extraction(data, crops={"crop_mm": 30.0}, healthy_slices_dir=shared_data / "luna").run(
        tmp_path / "out"
    )
    assert report["counts"]["nodules"] > 300 and report["counts"]["healthy_slices"] == 16
    bank = NoduleBank.load(tmp_path / "out" / "nodules")
    assert 5 < np.median([record.diameter_mm for record in bank.records]) < 15
    inside = np.array([np.median(hu[alpha > 200]) for hu, alpha in zip(bank.hu, bank.alpha, strict=True)])
    around = np.array([np.median(hu[alpha == 0]) for hu, alpha in zip(bank.hu, bank.alpha, strict=True)])
    assert (inside > around).mean() > 0.95 and -300 < np.median(inside) < 100


def found_and_known() -> tuple[np.ndarray, np.ndarray]:
    result, known = np.zeros((2, 1, 12, 12), np.uint8)
    result[0, 1:4, 1:4] = result[0, 8:11, 8:11] = 1
    known[0, 1:3, 1:4], known[0, 3, 1:4] = 2, 1
    return result, known


def test_pieces_have_the_category_that_they_cover_most_of() -> None:
    assigned = assign_categories(*found_and_known(), ("solid", "part_solid"))
    assert (
        (assigned[0, 1:4, 1:4] == 2).all()
        and (assigned[0, 8:11, 8:11] == 3).all()
        and (assigned > 0).sum() == 18
    )
    assert category_names(("solid", "part_solid"), "segmented") == ["solid", "part_solid", "unknown"]


def test_without_categories_all_are_one() -> None:
    result, known = found_and_known()
    assert np.array_equal(assign_categories(result, known, ()), result)
    assert category_names((), "segmented") == [] and category_names(("a",), "annotated") == ["a"]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="masks 'guessed' is unknown"):
        mask_source("guessed", "nowhere.pt")
    with pytest.raises(UserError, match=r"model\.(pt|json)"):
        mask_source("segmented", tmp_path / "model.pt")


def test_segmented_masks_are_those_of_the_saved_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DenseUNet()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    hu = np.random.default_rng(0).integers(-1000, 200, (2, 16, 16)).astype(np.int16)
    scan = NoduleScan(hu, np.zeros(hu.shape, np.uint8), (1.0, 1.0, 1.0), "a", "p", (), ("solid",))
    mask = mask_source("segmented", tmp_path / "model.pt")(scan)
    expected = SegmentationMethod.from_model("any", tmp_path / "model.pt").masks(scan)
    assert np.array_equal(mask > 0, expected > 0) and set(np.unique(mask)) <= {0, 2}  # unknown

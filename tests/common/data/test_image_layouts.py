"""Folders of images with their classes, and the slices of volumes that are taken."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.image_layouts import find_images, lung_slices, severity_of, spaced_slices
from common.data.splits import split_by_patient
from common.errors import UserError
from tests.common.data.made_sets import image_data
from tests.common.data.made_volumes import write_series

PAPERS = {
    "2020.02.25.20021568-p23-108_0": "2020.02.25.20021568",
    "2020.02.25.20021568-p24-111_12": "2020.02.25.20021568",
    "2020.03.12.20034686-p17-91-4": "2020.03.12.20034686",
    "PIIS0140673620301549_0_1": "PIIS0140673620301549",
    "PIIS0140673620301549%2": "PIIS0140673620301549",
    "kjr-21-e24-p3-16": "kjr-21-e24",
    "kjr-21-e25-p1-10": "kjr-21-e25",
    "59_0": "59",
    "59": "59",
    "1307": "1307",
}


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 10), dtype=np.uint8)).save(path)


def volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


@pytest.fixture
def covid(tmp_path: Path) -> Path:
    for seed, name in enumerate(PAPERS):
        picture(tmp_path / "covid" / f"{name}.png", seed)
    picture(tmp_path / "noncovid" / "7.png", seed=0)  # the same picture as covid's first
    picture(tmp_path / "noncovid" / "8.png", seed=99)
    return tmp_path


def test_each_folder_is_a_class_and_names_tell_the_source(covid: Path) -> None:
    found = find_images(covid)
    assert found.classes == ["covid", "noncovid"]
    patients = {sample.image.stem: sample.patient for sample in found.samples if sample.category == "covid"}
    assert patients == PAPERS
    assert [(s.name, s.category, s.mask) for s in found.samples[-2:]] == [
        ("noncovid-7", "noncovid", None), ("noncovid-8", "noncovid", None),
    ]  # fmt: skip


def test_sources_with_the_same_picture_are_never_parted(covid: Path) -> None:
    units = {sample.name: sample.unit for sample in find_images(covid).samples}
    same = [unit for name, unit in units.items() if "20021568" in name] + [units["noncovid-7"]]
    assert len(same) == 3 and len(set(same)) == 1
    assert len(set(units.values())) == len(set(PAPERS.values())) + 1
    for seed in range(8):
        parts = split_by_patient(find_images(covid).samples, seed=seed, apart=())
        held = [{sample.unit for sample in part} for part in parts.values()]
        assert sum(map(len, held)) == len(set.union(*held))


def test_a_set_of_one_picture_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "covid" / f"{name}.png", 5)
    with pytest.raises(UserError, match="all 3 images are the same or nearly so"):
        find_images(tmp_path)


def test_a_pattern_names_the_patients(covid: Path) -> None:
    assert {s.patient for s in find_images(covid, patient_pattern="()").samples} == {""}


def test_classes_are_chosen_by_name_in_that_order(covid: Path) -> None:
    found = find_images(covid)
    assert found.chosen("auto", covid).classes == ["covid"]
    assert len(found.chosen("auto", covid).samples) == len(PAPERS)
    assert found.chosen("all", covid) == found
    for names in ("noncovid, covid", ["noncovid", "covid"]):
        assert found.chosen(names, covid).classes == ["noncovid", "covid"]
    with pytest.raises(UserError, match="no class normal; there is covid, noncovid"):
        found.chosen("covid,normal", covid)
    with pytest.raises(UserError, match="no class chosen; there is"):
        found.chosen([], covid)


def test_one_flat_folder_is_one_class(covid: Path) -> None:
    found = find_images(covid / "noncovid")
    assert found.classes == ["noncovid"] and [s.name for s in found.samples] == ["7", "8"]
    assert found.chosen("auto", covid).classes == ["noncovid"]


def test_volumes_become_slices(tmp_path: Path) -> None:
    for frame in ("01", "02"):
        volume(tmp_path / "ill" / f"p1_frame{frame}.nii.gz", np.arange(60, dtype=np.int16).reshape(4, 5, 3))
    found = find_images(tmp_path)
    assert [(s.patient, s.index) for s in found.samples] == [("p1", z) for z in (0, 1, 2)] * 2
    assert found.classes == ["ill"] and len({s.name for s in found.samples}) == 6


def test_phantoms_are_slices_with_lung_by_severity(tmp_path: Path) -> None:
    lung, lesion = np.zeros((2, 10, 10, 4), np.uint8)
    lung[:5, :8, 1:] = 1
    lesion[0, :8, 2] = 1  # a fifth
    volume(tmp_path / "images" / "phantom_000.nii.gz", lung.astype(np.int16) - 3)
    volume(tmp_path / "masks" / "phantom_000.nii.gz", lesion)
    (tmp_path / "phantom.json").write_text("{}")
    with pytest.raises(UserError, match="labels/lung"):
        find_images(tmp_path)
    volume(tmp_path / "labels" / "lung" / "phantom_000.nii.gz", lung)
    found = find_images(tmp_path)
    assert [(s.index, s.category) for s in found.samples] == [(1, "none"), (2, "severe"), (3, "none")]
    assert found.classes == ["none", "severe"] == found.chosen("auto", tmp_path).classes
    assert {s.group for s in found.samples} == {"phantom"}


def test_pairs_give_their_images(tmp_path: Path) -> None:
    for name in ("p1_2", "p2_1"):
        picture(tmp_path / "images" / f"{name}.png", 1)
        picture(tmp_path / "masks" / f"{name}.png", 2)
    found = find_images(tmp_path)
    assert [(s.patient, s.mask) for s in found.samples] == [("p1", None), ("p2", None)]
    assert found.classes == [tmp_path.name]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_images(tmp_path / "none")
    with pytest.raises(UserError, match="no images found"):
        find_images(tmp_path)
    with pytest.raises(
        UserError, match="layout 'x' is unknown; choose one of auto, phantom, pairs, classes, patients, flat"
    ):
        find_images(tmp_path, layout="x")
    picture(tmp_path / "covid" / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    with pytest.raises(UserError, match=r"beside folders of images \(covid\)"):
        find_images(tmp_path)
    picture(tmp_path / "covid" / "a.jpg", 1)
    with pytest.raises(UserError, match="has the same name"):
        find_images(tmp_path, layout="classes")


@pytest.mark.realdata
def test_shared_covid_ct(shared_data: Path) -> None:
    found = find_images(shared_data / "covid_ct")
    counts = {name: sum(s.category == name for s in found.samples) for name in found.classes}
    assert counts == {"covid": 289, "noncovid": 337}
    papers = {s.patient for s in found.samples if s.category == "covid"}
    assert len(papers) == 58 and "kjr-21-e24" in papers and "2020.02.25.20021568" in papers
    units = [sum(s.unit == unit for s in found.samples) for unit in {s.unit for s in found.samples}]
    assert max(units) < 40
    same = {s.unit for s in found.samples if s.image.stem in ("kjr-21-e24-p5-29", "71_0")}
    assert len(same) == 1  # one picture in both classes


def told(folder: Path, **settings: str) -> dict[str, list[str]]:
    """Of each class its patients, one for each slice."""
    found = find_images(folder, **settings)
    assert len({sample.name for sample in found.samples}) == len(found.samples)
    return {
        name: [sample.patient for sample in found.samples if sample.category == name]
        for name in found.classes
    }


def test_folders_of_dicom_series_are_patients(tmp_path: Path) -> None:
    data = tmp_path / "chest"
    for seed, (folder, patient) in enumerate({"left": "H1", "right": "H2", "again": "H1"}.items()):
        write_series(data / folder, patient, 2 + seed, seed)
    assert told(data) == {"chest": ["H1"] * 4 + ["H1"] * 2 + ["H2"] * 3}
    assert told(data, layout="classes") == {"again": ["H1"] * 4, "left": ["H1"] * 2, "right": ["H2"] * 3}
    assert told(data / "left") == {"left": ["H1", "H1"]}  # one series, flat
    unnamed = tmp_path / "unnamed"
    for seed, folder in enumerate(("one", "two")):
        write_series(unnamed / folder, "", seed=seed)
    assert told(unnamed) == {"unnamed": ["one", "one", "two", "two"]}


def test_classes_of_dicom_series(tmp_path: Path) -> None:
    for seed, folder in enumerate(("ill/a", "ill/b", "well/a")):
        write_series(tmp_path / folder, f"H{seed}", seed=seed)
    assert told(tmp_path) == {"ill": ["H0", "H0", "H1", "H1"], "well": ["H2", "H2"]}
    single = tmp_path / "single"
    for seed in range(6):  # slices of different series are slices
        write_series(single / f"{'ab'[seed % 2]}/", f"H{seed}", 1, seed)
        for file in (single / "ab"[seed % 2]).glob("?_000.dcm"):
            file.rename(file.with_name(f"slice{seed}.dcm"))
    assert told(single) == {"a": ["H0", "H2", "H4"], "b": ["H1", "H3", "H5"]}


@pytest.mark.parametrize(
    ("folders", "patients"),
    [
        (("case1", "case2", "case12"), True),
        (("P001", "P002", "P117"), True),
        (("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"), True),
        (("case1", "case2"), False),  # two may be classes
        (("grade1", "grade2", "grade3"), False),
        (("0", "1", "2"), False),
        (("covid", "normal", "P001"), False),
    ],
)
def test_folders_with_patients_names(tmp_path: Path, folders: tuple[str, ...], patients: bool) -> None:
    data = tmp_path / "set"
    for place, folder in enumerate(folders):
        for number in range(2):
            picture(data / folder / f"IMG{number:04d}.png", 7 * place + number)
    if patients:
        assert told(data) == {"set": [name for name in sorted(folders) for _ in range(2)]}
    else:
        # Equal names in two classes that tell no patient are two people's.
        assert told(data) == {name: [f"{name}-IMG0000", f"{name}-IMG0001"] for name in sorted(folders)}
    assert set(told(data, layout="patients")) == {"set"}
    assert set(told(data, layout="classes")) == set(folders)


def test_patients_folders_within_classes(tmp_path: Path) -> None:
    for place, folder in enumerate(("ill/case1", "ill/case2_ses-2", "well/case9")):
        picture(tmp_path / folder / "0001.png", place)
        picture(tmp_path / folder / "0002.png", 5 + place)
    assert told(tmp_path) == {"ill": ["case1", "case1", "case2", "case2"], "well": ["case9", "case9"]}


def test_slices_without_a_patient_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(9):
        picture(tmp_path / "set" / f"{number:04d}.png", number)
    find_images(tmp_path / "set")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "0000.png -> 0000, 0003.png -> 0003, 0006.png -> 0006" in line and "--patient_pattern" in line


def test_prepared_sets_keep_the_names_they_were_given(tmp_path: Path) -> None:
    """`harmonise` joins patients' names with hyphens: only the last number is the slice's."""
    for number, name in enumerate(("set-case1-b_0000", "set-case1-c_0000", "set-1_0003")):
        picture(tmp_path / "images" / f"{name}.png", number)
    (tmp_path / "provenance.json").write_text("{}")
    assert told(tmp_path) == {"images": ["set-1", "set-case1-b", "set-case1-c"]}


@pytest.mark.parametrize(
    ("share", "name"),
    [(0.0, "none"), (0.001, "mild"), (0.049, "mild"), (0.05, "moderate"), (0.149, "moderate"),
     (0.15, "severe"), (1.0, "severe")],
)  # fmt: skip
def test_borders(share: float, name: str) -> None:
    assert severity_of(share) == name


def test_slices_by_their_own_share_of_lung() -> None:
    lung = np.zeros((10, 20, 5), np.uint8)
    lesion = np.zeros_like(lung)
    lung[:5, :10, 1:4] = 2  # 50 of 200 pixels
    lung[0, :9, 4] = 1  # 4.5 per cent of the slice
    lesion[8, :, 1] = 1  # outside of the lung
    lesion[0, :2, 2] = 1  # 4 per cent
    lesion[:1, :, 3] = 2  # 10 of its 20 pixels lie in the lung: 20 per cent
    assert lung_slices(lung, lesion) == {1: "none", 2: "mild", 3: "severe"}
    assert lung_slices(lung * 0, lesion) == {}


DEPTH, SPACING = 12, 4.0


def make_chest(path: Path, first: int, last: int, seed: int = 0, spacing: float = SPACING) -> None:
    """Lungs from slice ``first`` to ``last``, small in the first of them."""
    random = np.random.default_rng(seed)
    hu = np.full((DEPTH, 40, 48), -1000.0)
    hu[:, 4:36, 4:44] = 40
    for number in range(first, last + 1):
        half = 3 if number == first else 10
        for centre in (14, 34):
            hu[number, 20 - half : 20 + half, centre - half // 2 : centre + half // 2] = -850
    hu += random.normal(0, 10, hu.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = hu.transpose(2, 1, 0).astype(np.int16)  # columns to the left, rows to the back: -x, -y
    nib.save(nib.Nifti1Image(voxels, np.diag([-7.0, -7.0, spacing, 1.0])), path)


@pytest.fixture
def chests(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    for patient in range(4):
        make_chest(place / f"case{patient}.nii.gz", first=2, last=9, seed=patient)
    return place


def indices(chests: Path, slice_mm: float | None) -> list[int | None]:
    samples = spaced_slices(find_images(chests).samples, slice_mm)
    return [sample.index for sample in samples if sample.patient.endswith("1")]


def test_slices_with_lung_so_far_apart(chests: Path) -> None:
    assert indices(chests, None) == list(range(DEPTH))
    assert indices(chests, 4) == list(range(3, 10))  # slice 2 has too little lung
    assert indices(chests, 10) == [3, 6, 9]  # 12 mm apart
    assert indices(chests, 12) == [3, 6, 9]
    assert indices(chests, 100) == [3]


def test_pictures_and_single_slices_stay(chests: Path) -> None:
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 255, (20, 20), dtype=np.uint8)).save(chests / "paper8-p1-1.png")
    nib.save(
        nib.Nifti1Image(np.full((8, 8, 1), 30.0, np.float32) + np.eye(8)[..., None], np.eye(4)),
        chests / "one.nii.gz",
    )
    names = [sample.image.name for sample in spaced_slices(find_images(chests).samples, 100)]
    assert sorted(names) == [*(f"case{n}.nii.gz" for n in range(4)), "one.nii.gz", "paper8-p1-1.png"]


def test_a_data_set_of_links_is_split_by_volume_and_remembers(chests: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in chests.iterdir():
        (linked / file.name).symlink_to(file)
    data = image_data(linked, 16, slice_mm=10)
    assert sum(len(part) for part in data.splits.values()) == 12
    parts = [{sample.patient for sample in part} for part in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert data.metadata()["slice_mm"] == 10 and image_data(linked, 16).metadata()["slice_mm"] is None
    other = tmp_path / "elsewhere" / "linked"  # the class has the chests's name
    make_chest(other / "case7.nii.gz", 2, 9, seed=7)
    assert len(data.from_folder(other)) == 3


def test_what_cannot_be_told_is_refused(chests: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="slice_mm 0: give a distance above 0 mm"):
        spaced_slices(find_images(chests).samples, 0)
    solid = tmp_path / "solid" / "case1.nii.gz"
    make_chest(solid, 5, 4)
    with pytest.raises(UserError, match=r"case1\.nii\.gz: no lung found"):
        spaced_slices(find_images(solid.parent).samples, 10)

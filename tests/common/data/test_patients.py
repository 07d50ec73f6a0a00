from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import common.data.patients as duplicates
from common.data.intensity import WINDOWS, to_unit
from common.data.patients import (
    connected,
    identify_patient,
    join_persons,
    keep_scans_together,
    near_duplicate_groups,
    patient_of,
    scan_groups,
    thumbnail,
    without_padding,
)
from common.data.samples import Sample
from common.data.volume_io import open_volume
from common.errors import UserError

SLICES = {
    # a slice's number after a word of the field
    "case0_slice012.png": "case0",
    "case0_z012.png": "case0",
    "p3_slice_7.png": "p3",
    "p3-sl007.png": "p3",
    "left3_img12.jpg": "left3",
    "ward_image-12.png": "ward",
    "abc_im4.png": "abc",
    "x_z12.png": "x",
    "7z012.png": "7",
    "b2_t03_z011.png": "b2",
    "b2_frame11_slice2.png": "b2",
    "patient001_frame12.png": "patient001",
    "b2 slice 12.png": "b2",
    # a bare number, after underscore, hyphen, dot, blank, in brackets
    "1001_179.png": "1001",
    "case7_012.png": "case7",
    "mark-012.jpg": "mark",
    "mark.012.png": "mark",
    "mark 12.png": "mark",
    "case1 (12).png": "case1",
    "case1[12].png": "case1",
    "mark (12).png": "mark",
    "mark7[3].png": "mark7",
    "1001_2_35.png": "1001",
    "coronacases_org_001_17.png": "coronacases_org_001",
    "Data-1_coronacases_org_001_1.jpg": "Data-1_coronacases_org_001",
    "lung_003_120.png": "lung_003",
    # sessions, series and what is made of a slice
    "sub-03_ses-02_slice-012_T1w.png": "sub-03",
    "1001_series2_012.png": "1001",
    "case7_012_variant02.png": "case7",
    "mark_012_variant02.png": "mark",
    # identifiers, wherever the slice's number stands
    "LIDC-IDRI-0515_nodule-0.png": "LIDC-IDRI-0515",
    "LIDC-IDRI-0660_nodule-3-2.png": "LIDC-IDRI-0660",
    "LIDC-IDRI-0012.png": "LIDC-IDRI-0012",
    "noncovid_LIDC-IDRI-0012_z3.png": "LIDC-IDRI-0012",
    "TCGA-17-Z045_00.png": "TCGA-17-Z045",
    "A0001_12.png": "A0001",
    "G0007.png": "G0007",
    "Lung_Dx-A0002-7.png": "Lung_Dx-A0002",
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.1790_012.png": "1.3.6.1.4.1.14519.5.2.1.6279.6001.1790",
    "hospitalB-case_7_left_3.png": "hospitalB-case_7",
    # the number is the patient
    "case12.png": "case12",
    "case_012.png": "case_012",
    "patient012.png": "patient012",
    "Subject-4_z7.png": "Subject-4",
    # publications
    "2020.03.22.20034041-p17-80-1.png": "2020.03.22.20034041",
    "PIIS0140673620303603_4.png": "PIIS0140673620303603",
    "PIIS0140673620303603_0_1.png": "PIIS0140673620303603",
    "59_0.png": "59",
    # nobody: the slice stays by itself
    "0012.png": "0012",
    "IMG0012.png": "IMG0012",
    "IMG_0012.png": "IMG_0012",
    "slice_12.png": "slice_12",
    "ct_scan12.png": "ct_scan12",
    "other.png": "other",
}
VOLUMES = {
    "patient001_frame12.nii.gz": "patient001",
    "patient001_frame12_variant02.nii.gz": "patient001",
    "heart_variant02.nii.gz": "heart",
    "b2_t07.nii.gz": "b2",
    "ct_train_1001.nii.gz": "ct_train_1001",
    "case_3.mhd": "case_3",
    "case3_ct.nii.gz": "case3",
    "patient012.nii.gz": "patient012",
    "lung_012.nii.gz": "lung_012",
    "volume-12.nii": "volume-12",
    "img0007.nii.gz": "img0007",
    "sub-03_T1w.nii.gz": "sub-03",
    "sub-03_ses-02_T1w.nii.gz": "sub-03",
    "1001_scan2.nii.gz": "1001",
    "LIDC-IDRI-0012_R_10.nii.gz": "LIDC-IDRI-0012",
    "LIDC-IDRI-0001.nii.gz": "LIDC-IDRI-0001",
    "Lung_Dx-A0001.nii.gz": "Lung_Dx-A0001",
    "covidctmd_normal002.nii.gz": "covidctmd_normal002",
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.1790.mhd": "1.3.6.1.4.1.14519.5.2.1.6279.6001.1790",
}
NOBODY = {
    "0012", "IMG0012", "IMG_0012", "slice_12", "ct_scan12", "other", "case12", "case_012", "patient012",
    "G0007",
}  # fmt: skip


@pytest.mark.parametrize(("file", "patient"), [*SLICES.items(), *VOLUMES.items()])
def test_names_of_the_field(file: str, patient: str) -> None:
    assert patient_of(Path(file)) == patient


def test_names_that_tell_nobody_are_known_as_such() -> None:
    assert {Path(file).stem for file in SLICES if not identify_patient(Path(file)).identified} == NOBODY
    assert all(identify_patient(Path(file)).identified for file in VOLUMES)


def test_a_nifti_file_of_one_slice_is_a_slice(tmp_path: Path) -> None:
    slice_, volume = tmp_path / "lung_003_00.nii.gz", tmp_path / "lung_003.nii.gz"
    for path, depth in ((slice_, 1), (volume, 4)):
        nib.save(nib.Nifti1Image(np.zeros((3, 2, depth), np.int16), np.eye(4)), path)
    assert patient_of(slice_) == patient_of(volume) == "lung_003"


def series(folder: Path, patient: str, uid: str = "1.2.3") -> Path:
    """Two DICOM headers without pixels."""
    folder.mkdir(parents=True)
    for number in range(2):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{uid}.{number}"
        data.PatientID, data.SeriesInstanceUID = patient, uid
        data.save_as(folder / f"IM{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    ("identity", "of_folder", "of_file"),
    [("H-0815", "H-0815", "H-0815"), ("", "scanB", "1.2.3"), ("Anonymous", "scanB", "1.2.3")],
)
def test_a_dicom_header_says_who_it_is(tmp_path: Path, identity: str, of_folder: str, of_file: str) -> None:
    folder = series(tmp_path / "scanB", identity)
    assert patient_of(folder) == of_folder and patient_of(folder / "IM1.dcm") == of_file
    assert patient_of(folder, r"scan(\w)") == "B"


def test_groups_and_names() -> None:
    path = Path("A_R_03.nii.gz")
    assert patient_of(path, r"(?P<side>A)_(?P<patient>\w)") == "R"
    assert patient_of(path, r"(\w)_") == "A" and patient_of(path, r"\w_\w") == "A_R"
    assert patient_of(path, r"(\w+)_frame", name="B_frame1") == "B"
    assert identify_patient(path, r"(B)_") == ("A_R_03", False)
    with pytest.raises(UserError, match="no regular expression"):
        patient_of(path, "(")


REAL = {  # folder: files, patients (lidc_crops: as its README says)
    "covid_ct/covid": (289, 58),
    "covid_ct/noncovid": (337, 234),
    "cardiac_chd/images": (24, 5),
    "lidc_crops/images": (2565, 659),
    "nodule_slices/images": (921, 526),
    "nodule_volumes/images": (320, 170),
    "lung_slices_hu": (41, 29),
    "chest_volumes_hu": (8, 8),
    "acdc": (64, 16),
}
SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.realdata
@pytest.mark.parametrize(("folder", "files", "patients"), [(name, *counts) for name, counts in REAL.items()])
def test_real_sets(folder: str, files: int, patients: int) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"needs the real images in {SHARED / folder}")
    found = [path for path in (SHARED / folder).iterdir() if path.is_file()]
    assert (len(found), len({patient_of(path) for path in found})) == (files, patients)


CHESTS = SHARED / "chest_volumes_hu"


def blocks(seed):
    return np.kron(np.random.default_rng(seed).uniform(0, 1, (8, 8)), np.ones((8, 8))).astype(np.float32)


def sample(patient):
    return Sample(Path(f"{patient}.png"), None, patient)


def test_chains_across_sets_are_one_person_and_within_a_set_nothing_is_joined():
    # x: patients a, b, e; y: c; z: d. a and c share a slice, c and d another; b and e look alike in one set.
    patients, sets, seeds = "abeccd", "xxxyyz", [0, 7, 7, 0, 5, 5]
    thumbnails = np.stack([thumbnail(blocks(seed)) for seed in seeds])
    joined = join_persons([sample(patient) for patient in patients], list(sets), thumbnails)
    assert [item.unit for item in joined] == ["a", "b", "e", "a", "a", "a"]
    assert [item.patient for item in joined] == list(patients)


def written(folder, names, scans, size=24):
    """Pictures of made scans: ``scans`` says how many slices each has; neighbours differ a little."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = []
    for seed, count in enumerate(scans):
        random = np.random.default_rng(seed)
        first, step = random.uniform(0, 200, (8, 8)), random.uniform(-6, 6, (8, 8))
        slices += [np.kron(first + place * step, np.ones((size // 8,) * 2)) for place in range(count)]
    for name, values in zip(names, slices, strict=True):
        Image.fromarray(np.clip(values + 20, 0, 255).astype(np.uint8)).save(folder / name)
    return [Sample(folder / name, None, patient_of(folder / name)) for name in names]


def test_slices_without_a_patient_are_kept_with_their_neighbours(tmp_path, caplog):
    records = written(tmp_path / "images", [f"IMG{n}.png" for n in range(5, 14)], [4, 3, 2])
    joined = keep_scans_together(records, tmp_path)
    assert [item.patient for item in joined] == [item.patient for item in records]
    assert [item.unit for item in joined] == ["IMG5"] * 4 + ["IMG9"] * 3 + ["IMG12"] * 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert "IMG5.png -> IMG5, IMG8.png -> IMG8, IMG11.png -> IMG11" in line
    assert "9 slices as 3 patients" in line and "--patient_pattern" in line and "splits.json" in line


@pytest.mark.parametrize(
    "names",
    [
        [f"{'ab'[n % 2]}_{n:02d}.png" for n in range(9)],  # two patients
        [f"TCGA-17-Z{n:03d}.png" for n in range(9)],  # identifiers, one slice of each
        [f"ct_train_{n}_image.nii.gz" for n in range(9)],  # volumes, not even there
    ],
)
def test_names_that_tell_the_patient_are_left_alone(tmp_path, caplog, names):
    records = [Sample(tmp_path / name, None, patient_of(tmp_path / name)) for name in names]
    assert keep_scans_together(records, tmp_path) == records and not caplog.records


def test_the_users_word_goes_first(tmp_path, caplog):
    records = written(tmp_path / "images", [f"{n:04d}.png" for n in range(9)], [9])
    pattern = r"\d\d\d"
    named = [replace(record, patient=patient_of(record.image, pattern)) for record in records]
    assert keep_scans_together(named, tmp_path, pattern) == named
    (tmp_path / "splits.json").write_text("{}")
    assert keep_scans_together(records, tmp_path) == records and not caplog.records
    (tmp_path / "splits.json").unlink()
    unmatched = keep_scans_together(records, tmp_path, "x(.)")
    assert {item.unit for item in unmatched} == {"0000"} and caplog.records


@pytest.mark.realdata
@pytest.mark.skipif(not CHESTS.is_dir(), reason=f"needs the real volumes in {CHESTS}")
def test_numbered_slices_of_real_scans_fall_into_their_patients(tmp_path):
    """Eight CTs with 1 to 8 mm between slices, every slice a nameless picture."""
    owners, records = [], []
    for scan in sorted(CHESTS.iterdir()):
        slices = to_unit(open_volume(scan).array, WINDOWS["lung"], True)
        for number in range(slices.shape[2]):
            path = tmp_path / f"{len(records):04d}.png"
            Image.fromarray((slices[::4, ::4, number] * 255).astype(np.uint8)).save(path)
            records.append(Sample(path, None, path.stem))
            owners.append(scan.name)
    units = [item.unit for item in keep_scans_together(records, tmp_path)]
    assert len(set(zip(units, owners, strict=True))) == 8  # no scan is parted
    assert len(set(units)) == 8  # and none is joined with another


def test_chains_share_a_number_in_the_order_of_the_things() -> None:
    assert connected(np.array([(4, 1), (1, 3), (0, 0)]), 6) == [0, 1, 2, 1, 1, 3]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_pictures_that_show_the_same(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (40, 50)).astype(np.uint8) for _ in range(2)]
    brighter = (scenes[1] * 0.5 + 90).astype(np.uint8)
    samples = []
    for number, picture in enumerate((scenes[0], scenes[1], brighter, scenes[0][:, ::-1])):
        samples.append(Sample(tmp_path / f"{number}.png", None, ""))
        Image.fromarray(picture).save(samples[-1].image)
    assert near_duplicate_groups(samples) == [0, 1, 1, 2]
    assert near_duplicate_groups([]) == [] == scan_groups([])


def test_chains_through_most_of_a_set_are_not_followed(tmp_path: Path) -> None:
    """Two scans, one after the other, whose middles are alike but not the same."""
    random = np.random.default_rng(1)
    ends = [random.normal(0, 1, (32, 32)) for _ in range(4)]
    middle = random.normal(0, 1, (32, 32))
    shares = np.sin(np.linspace(0, np.pi, 7)) ** 0.5 * 0.97
    slices = [
        share * middle + (1 - share**2) ** 0.5 * (ends[2 * scan] if place < 3 else ends[2 * scan + 1])
        for scan in range(2)
        for place, share in enumerate(shares)
    ]
    samples = []
    for number, values in enumerate(slices):
        samples.append(Sample(tmp_path / f"{number:02d}.png", None, ""))
        Image.fromarray(np.clip(values * 30 + 128, 0, 255).astype(np.uint8)).save(samples[-1].image)
    correlation = np.corrcoef([values.ravel() for values in slices])
    assert 0.85 < correlation[3, 10] < 0.95 and correlation[6, 7] < 0.2  # the middles; the border
    groups = near_duplicate_groups(samples, 0.8)
    assert not set(groups[:7]) & set(groups[7:])


def test_linear_windows_are_not_seen() -> None:
    assert thumbnail(blocks(0)) @ thumbnail(0.5 * blocks(0) + 0.2) == pytest.approx(1.0, abs=1e-5)
    eight_bits = np.rint(255 * blocks(0)).astype(np.uint8)
    assert thumbnail(blocks(0)) @ thumbnail(eight_bits) == pytest.approx(1.0, abs=1e-4)
    assert abs(thumbnail(blocks(0)) @ thumbnail(blocks(1))) < 0.5


def test_constant_pictures_are_like_nothing() -> None:
    assert not thumbnail(np.full((8, 8), 0.3, np.float32)).any()


def test_padding_makes_no_images_alike() -> None:
    """Two slices that differ, in wide black bars: as alike as without them once these are cut off."""
    numbers = np.random.default_rng(0)
    plain = [numbers.random((32, 48)).astype(np.float32) + 1 for _ in range(2)]
    padded = [np.pad(image, ((20, 28), (0, 0))) for image in plain]
    cut = [without_padding(image) for image in padded]
    alike = [float(thumbnail(pair[0]) @ thumbnail(pair[1])) for pair in (plain, cut, padded)]
    assert alike[1] == pytest.approx(alike[0], abs=1e-6) and abs(alike[0]) < 0.3 and alike[2] > 0.9
    assert without_padding(np.zeros((8, 8), np.float32)).shape == (8, 8)

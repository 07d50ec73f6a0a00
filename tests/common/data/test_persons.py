from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.intensity import WINDOWS, to_unit
from common.data.patients import patient_of
from common.data.persons import join_persons, keep_scans_together
from common.data.samples import Sample
from common.data.thumbnails import thumbnail
from common.data.volumes import open_volume

CHESTS = Path(__file__).parents[4] / "shared" / "data" / "chest_volumes_hu"


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

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, combinations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.image_io import Pixels
from common.data.intensity import WINDOWS
from common.data.layouts import find_samples
from common.data.merge_datasets import MergeSettings, harmonise, value_range_of
from common.data.public_datasets import LocalDataset, load_registry
from common.data.splits import assign, read_splits
from common.errors import UserError

REGISTRY = load_registry()
SETTINGS = MergeSettings(image_size=16, window=WINDOWS["lung"])


def picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def slices(folder, cases, value=255):
    """Slices of ``cases`` in the layout of the collection of 2 729: left half bright, lesion top right."""
    image, mask = np.zeros((32, 24)), np.zeros((32, 24))
    image[:, :12], mask[:8, 12:] = 255, value
    for case in cases:
        for number in range(2):
            name = f"Jun_coronacases_case{case}_{number}.png"
            picture(folder / "frames" / name, np.clip(image - case - number, 0, 255))
            picture(folder / "masks" / name, mask)
    return LocalDataset(REGISTRY["covid_lesion_collection"], folder)


def volumes(folder, cases, labels=(1,)):
    """Volumes of the same cases in the layout of COVID-19-CT-Seg; only slice 2 of 4 has a lesion."""
    for case in cases:
        array, mask = np.full((32, 32, 4), -1000, np.int16), np.zeros((32, 32, 4), np.int16)
        array[:16], mask[8:24, 8:24, 2] = 400, labels[0]
        for kind, data in (("images", array), ("masks", mask)):
            path = folder / kind / f"coronacases_{case:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return LocalDataset(REGISTRY["covid19_ct_seg"], folder)


def read(path):
    with Image.open(path) as opened:
        return np.asarray(opened).astype(np.float64)


def test_stretching_is_a_setting(tmp_path):
    settings = replace(SETTINGS, fit="stretch")
    harmonise([slices(tmp_path / "a", [1, 2, 3])], tmp_path / "out", settings, progress=False)
    image, mask = (read(tmp_path / "out" / kind / "coronacases-1_0000.png") for kind in ("images", "masks"))
    assert image[:, 0] == pytest.approx(np.full(16, 65535 * 254 / 255), abs=1.0) and image[0, -1] == 0
    assert mask[:4, 8:].all() and mask.sum() == 4 * 8 * 255


def test_values_size_and_mask(tmp_path):
    counts = harmonise([slices(tmp_path / "a", [1, 2, 3])], tmp_path / "out", SETTINGS, progress=False)
    image, mask = (read(tmp_path / "out" / kind / "coronacases-1_0000.png") for kind in ("images", "masks"))
    assert image.shape == mask.shape == (16, 16)
    # 32 x 24 pixels are 16 x 12 in the middle of the square.
    assert image[:, 2] == pytest.approx(np.full(16, 65535 * 254 / 255), abs=1.0) and not image[:, :2].any()
    assert set(np.unique(mask)) == {0, 255} and mask[:4, 8:14].all() and mask.sum() == 4 * 6 * 255
    assert counts == {"train": 2, "val": 2, "test": 2, "empty": 0}


def blobs(folder, name, stems, seed, scale=1.0):
    """Slices that look different, as plain pairs of set ``name``."""
    for number, stem in enumerate(stems):
        rng = np.random.default_rng([seed, number])
        mask = np.zeros((32, 32))
        mask[4:12, 4:12] = 1
        image = np.kron(rng.uniform(0, 200, (8, 8)), np.ones((4, 4)))
        picture(folder / "images" / f"{stem}.png", image * scale)
        picture(folder / "masks" / f"{stem}.png", mask)
    return LocalDataset(REGISTRY[name], folder)


def test_no_patient_is_in_two_splits_even_across_sets(tmp_path):
    ones = [f"Jun_coronacases_case{case}_{number}" for case in range(1, 9) for number in range(2)]
    twos = [f"coronacases_{case:03d}_7" for case in range(4, 12)]
    sources = [
        blobs(tmp_path / "a", "covid_lesion_collection", ones, seed=1),
        blobs(tmp_path / "b", "covid19_ct_seg", twos, seed=2),
    ]
    harmonise(sources, tmp_path / "out", SETTINGS, progress=False)
    table = read_splits(tmp_path / "out" / "splits.json")  # raises where a patient is in two splits
    assert sorted(chain(*table.values())) == sorted(f"coronacases-{case}" for case in range(1, 12))
    samples = find_samples(tmp_path / "out")
    parts = assign(samples, table)
    assert len(samples) == 8 * 2 + 8 and all(parts.values())
    patients = [{sample.patient for sample in part} for part in parts.values()]
    assert not any(one & two for one, two in combinations(patients, 2))
    # Cases 4..8 are in both sets: their slices of both carry one patient.
    assert sum(sample.patient == "coronacases-4" for sample in samples) == 3


def test_hu_go_through_the_window_and_empty_slices_are_dropped(tmp_path):
    counts = harmonise([volumes(tmp_path / "b", [1, 2, 3])], tmp_path / "out", SETTINGS, progress=False)
    assert counts["empty"] == 9 and counts["train"] == 1
    image = read(tmp_path / "out" / "images" / "coronacases-1_0000.png")
    assert (image[:, 0] == 65535).all() and (image[:, -1] == 0).all()  # 400 HU and -1000 HU


def test_grey_values_in_a_wide_type_are_no_hu(tmp_path):
    source = volumes(tmp_path / "b", [1, 2, 3])
    # The Radiopaedia cases of COVID-19-CT-Seg are stored like this.
    for path in (tmp_path / "b" / "images").iterdir():
        loaded = nib.load(path)
        grey = np.where(np.asarray(loaded.dataobj) > 0, 255, 51).astype(np.int16)
        nib.save(nib.Nifti1Image(grey, loaded.affine), path)
    harmonise([source], tmp_path / "out", SETTINGS, progress=False)
    image = read(tmp_path / "out" / "images" / "coronacases-1_0000.png")
    assert (image[:, 0] == 65535).all() and (image[:, -1] == 13107).all()


def test_empty_slices_are_kept_on_request(tmp_path):
    settings = replace(SETTINGS, keep_empty=True)
    counts = harmonise([volumes(tmp_path / "b", [1, 2, 3])], tmp_path / "out", settings, progress=False)
    assert counts["empty"] == 0 and sum(counts.values()) == 12


def test_same_seed_same_split(tmp_path):
    source = slices(tmp_path / "a", range(1, 12))
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        harmonise([source], tmp_path / name, replace(SETTINGS, seed=seed), progress=False)
    texts = [(tmp_path / name / "splits.json").read_text() for name in ("one", "two", "three")]
    assert texts[0] == texts[1] != texts[2]


def test_provenance(tmp_path):
    harmonise([slices(tmp_path / "a", [1, 2, 3])], tmp_path / "out", SETTINGS, progress=False)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["settings"]["window"] == {"lower": -1000, "upper": 400}
    entry = record["slices"]["coronacases-2_0001"]
    assert (entry["set"], entry["patient"]) == ("covid_lesion_collection", "coronacases-2")
    assert entry["image"] == "frames/Jun_coronacases_case2_1.png" and len(entry["image_sha256"]) == 64


def test_sets_without_masks_give_images_alone(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "a" / "covid" / f"{name}.png", np.arange(64).reshape(8, 8) * 4)
    harmonise(
        [LocalDataset(REGISTRY["covid_ct"], tmp_path / "a")], tmp_path / "out", SETTINGS, progress=False
    )
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    assert not (tmp_path / "out" / "masks").exists()


def test_output_is_whole_or_absent(tmp_path):
    source = slices(tmp_path / "a", [1, 2, 3])
    broken = tmp_path / "a" / "masks" / "Jun_coronacases_case3_1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=r"Jun_coronacases_case3_1\.png: cannot be read"):
        harmonise([source], tmp_path / "out", SETTINGS, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_patients_that_look_the_same_in_two_sets_stay_together(tmp_path):
    stems = [f"p{patient}_1" for patient in range(6)]
    one = blobs(tmp_path / "a", "covid_lesion_collection", stems, seed=1)
    two = blobs(tmp_path / "b", "lidc_idri", [f"q{patient}_1" for patient in range(6)], seed=1, scale=0.8)
    for seed in range(3):
        output = tmp_path / f"out{seed}"
        harmonise([one, two], output, replace(SETTINGS, seed=seed), progress=False)
        table = read_splits(output / "splits.json")
        for part in table.values():
            assert {p[-1] for p in part if "lidc" in p} == {p[-1] for p in part if "lidc" not in p}


def test_standardise_brings_two_windows_to_one_look(tmp_path):
    """The same slices at two windows: their means come closer."""
    rng = np.random.default_rng(0)
    for case in range(1, 9):
        image = np.where(np.arange(32) < 16, 40, 160)[None] + rng.normal(0, 3, (32, 32))
        mask = np.zeros((32, 32))
        mask[4:12, 4:12] = 255
        window = image if case % 2 else image * 1.4 + 20
        picture(tmp_path / "a" / "frames" / f"Jun_coronacases_case{case}_1.png", np.clip(window, 0, 255))
        picture(tmp_path / "a" / "masks" / f"Jun_coronacases_case{case}_1.png", mask)
    source = LocalDataset(REGISTRY["covid_lesion_collection"], tmp_path / "a")
    spread = {}
    for method in ("none", "landmarks", "histogram"):
        output = tmp_path / f"out-{method}"
        harmonise([source], output, replace(SETTINGS, standardise=method), progress=False)
        means = [read(path).mean() for path in (output / "images").iterdir()]
        spread[method] = np.std(means)
    assert spread["landmarks"] < 0.5 * spread["none"] and spread["histogram"] < 0.5 * spread["none"]


def test_what_does_not_merge_is_refused(tmp_path):
    source = slices(tmp_path / "a", [1])
    (tmp_path / "there").mkdir()
    picture(tmp_path / "b" / "covid" / "x.png", np.arange(64).reshape(8, 8))
    unmasked = LocalDataset(REGISTRY["covid_ct"], tmp_path / "b")
    empty = slices(tmp_path / "c", [1, 2, 3], value=0)
    for sources, output, says in (
        ([source], "there", "there: exists already"),
        ([source], "a/out", "a/out: lies inside the set"),
        ([source, unmasked], "out", "do not merge"),
        ([empty], "out", "every mask is empty"),
    ):
        with pytest.raises(UserError, match=says):
            harmonise(sources, tmp_path / output, SETTINGS, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "is_hu", "modality", "expected"),
    [
        ([-1000, 40, 200], True, "CT", (True, (0.0, 255.0))),
        ([0, 40, 255], False, "CT", (False, (0.0, 65535.0))),
        ([0, 50, 100], True, "MR", (False, (1.0, 99.0))),
    ],
)
def test_meaning_of_values(values, is_hu, modality, expected):
    source_range = (0.0, 255.0) if is_hu else (0.0, 65535.0)
    pixels = Pixels(np.array([values], np.float32), is_hu, source_range)
    assert value_range_of(pixels, modality) == (expected[0], pytest.approx(expected[1]))


def test_every_split_of_a_merged_set_holds_slices_of_each_source(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "common.data.merge_datasets.join_persons", lambda samples, *_: samples
    )  # they look alike
    first, second = slices(tmp_path / "a", range(1, 13)), volumes(tmp_path / "b", range(21, 33))
    settings = replace(SETTINGS, fractions=(0.5, 0.25, 0.25))
    harmonise([first, second], tmp_path / "out", settings, progress=False)
    for patients in read_splits(tmp_path / "out" / "splits.json").values():
        numbers = [int(patient.rpartition("-")[2]) for patient in patients]
        assert 0 < sum(number > 20 for number in numbers) < len(numbers)

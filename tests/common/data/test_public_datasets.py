from __future__ import annotations

import copy
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.data import public_datasets as module
from common.data.downloads import Digests
from common.data.layouts import LAYOUTS
from common.data.public_datasets import (
    LocalDataset,
    arrange,
    find_dataset,
    format_registry,
    instructions,
    load_registry,
    matches,
    obtain,
    source_samples,
    validate,
)
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.paths import repository_root


@pytest.fixture(scope="module")
def content():
    return json.loads((repository_root() / "datasets.json").read_text(encoding="utf-8"))


def test_shipped_registry_fits_its_schema():
    registry = load_registry()
    assert len(registry) >= 20
    assert {bundle for entry in registry.values() for bundle in entry.bundles} == {
        "pix2pix_covid", "patchgan_cardiac", "dcgan_covid", "lung_two_stage"
    }  # fmt: skip


COVID = ["medseg_100", "covid19_ct_seg", "mosmed", "covid_semiseg", "covid_lesion_collection", "covid_ct"]
OTHERS = ["mm_whs", "chd68", "image_chd", "acdc", "luna16", "lidc_idri"]


@pytest.mark.parametrize("name", [*COVID, *OTHERS])
def test_the_papers_sets_are_listed(name):
    assert load_registry()[name].landing_page.startswith("http")


def test_mask_conventions():
    registry = load_registry()
    assert registry["medseg_100"].mask.foreground == (1, 2, 3)
    assert registry["medseg_100"].mask.values[3] == "pleural effusion"
    assert registry["cncb_lesions"].mask.foreground == (2, 3)  # 1 is the lung, not a lesion
    assert registry["mm_whs"].mask.values[420] == "left atrium"
    assert registry["covid_semiseg"].mask.threshold == 128
    assert registry["covid_ct"].mask.kind == "none"


def test_every_rule_of_every_entry_is_usable():
    for entry in load_registry().values():
        assert entry.adapter == "pairs" or entry.adapter in LAYOUTS
        assert all(value in entry.mask.values for value in entry.mask.foreground or ())
        if entry.pairs:
            assert re.compile(entry.pairs.key).groups >= 1
            assert entry.pairs.orientation in ORIENTATIONS
            assert (entry.pairs.masks is None) == (entry.mask.kind == "none")
        for pattern, identity in entry.shared_patients:
            assert identity.format(*["7"] * re.compile(pattern).groups)


def test_sign_up_sets_list_no_files_and_overlaps_go_both_ways():
    registry = load_registry()
    for name, entry in registry.items():
        assert not (entry.sign_up and entry.files)
        assert all(name in registry[other].overlaps for other in entry.overlaps), name


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("medseg_100", "licence"), 3, "licence"),
        (("medseg_100", "landing_page"), "ftp://x", "landing_page"),
        (("medseg_100", "bundles"), ["pix2pix"], "bundles"),
        (("covid19_ct_seg", "files", 0, "sha256"), "abc", "sha256"),
        (("covid19_ct_seg", "files", 0, "name"), "../x.zip", "name"),
        (("covid19_ct_seg", "files", 0, "unpack_to"), "../x", "unpack_to"),
        (("mosmed", "files"), [{"url": "https://x.org/a", "name": "a", "sha256": None}], "files"),
        (("mosmed", "overlaps"), ["nowhere"], "nowhere"),
        (("mosmed", "colour"), "red", "colour"),
    ],
)
def test_schema_refuses(content, path, value, named):
    broken = copy.deepcopy(content)
    place = broken["datasets"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UserError, match=named):
        validate(broken, "datasets.json")


def test_missing_field_is_named(content):
    broken = copy.deepcopy(content)
    del broken["datasets"]["acdc"]["mask"]
    with pytest.raises(UserError, match=r"acdc.*'mask' is a required property"):
        validate(broken, "datasets.json")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="nearest known name is 'mosmed'"):
        find_dataset("MosMedData", load_registry())


REGISTRY = load_registry()


def picture(path, value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:5, 2:5] = 200 if value is None else value
    Image.fromarray(pixels).save(path)


def volume(path, array):
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def test_pairs_of_pictures_with_patients_that_hold_across_sets(tmp_path):
    radiopaedia = "Jun_radiopaedia_10_85902_1_case13_14"
    for name in ("Jun_coronacases_case10_7", radiopaedia, "Morozov_study_0255_3", "bjorke_1"):
        picture(tmp_path / "frames" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png")
    samples = source_samples(LocalDataset(REGISTRY["covid_lesion_collection"], tmp_path))
    assert [sample.patient for sample in samples] == [
        "coronacases-10", "radiopaedia-10", "mosmed-255", "covid_lesion_collection-bjorke_1"
    ]  # fmt: skip
    assert samples[0].mask == tmp_path / "masks" / "Jun_coronacases_case10_7.png"


def test_one_patient_has_one_id_in_three_sets(tmp_path):
    picture(tmp_path / "a" / "pseudo" / "images" / "Data-1_coronacases_org_001_12.jpg")
    picture(tmp_path / "a" / "pseudo" / "masks" / "Data-1_coronacases_org_001_12.png")
    picture(tmp_path / "b" / "frames" / "Jun_coronacases_case1_12.png")
    picture(tmp_path / "b" / "masks" / "Jun_coronacases_case1_12.png")
    volume(tmp_path / "c" / "images" / "x" / "coronacases_001.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "c" / "masks" / "x" / "coronacases_001.nii.gz", np.ones((8, 8, 8)))
    names = {"a": "covid_semiseg", "b": "covid_lesion_collection", "c": "covid19_ct_seg"}
    sources = [LocalDataset(REGISTRY[name], tmp_path / part) for part, name in names.items()]
    samples = [sample for source in sources for sample in source_samples(source)]
    assert {sample.patient for sample in samples} == {"coronacases-1"}
    assert len(samples) == 1 + 1 + 8


def test_stack_of_slices_of_many_patients(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    samples = source_samples(LocalDataset(REGISTRY["medseg_100"], tmp_path))
    assert [sample.index for sample in samples] == [0, 1, 2]
    assert len({sample.patient for sample in samples}) == 3
    assert samples[0].mask_values == (1, 2, 3)


def test_own_foreground_leaves_other_values_as_background(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    sample = source_samples(LocalDataset(REGISTRY["medseg_100"], tmp_path, foreground=(1, 2)))[0]
    assert sample.mask_values == (1, 2) and 3 in sample.mask_background


def test_images_without_mask_are_left_out_and_counted(tmp_path, caplog):
    studies = tmp_path / "studies" / "CT-1"
    for number in (254, 255):
        volume(studies / f"study_0{number}.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "masks" / "study_0255_mask.nii.gz", np.ones((8, 8, 8)))
    samples = source_samples(LocalDataset(REGISTRY["mosmed"], tmp_path))
    assert {sample.patient for sample in samples} == {"mosmed-255"}
    assert caplog.messages == [f"{tmp_path}: left out: 1 image (studies/CT-1/study_0254.nii.gz)"]


def test_links_are_followed_and_system_folders_are_not(tmp_path, caplog):
    volume(tmp_path / "disk" / "study_0255.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "set" / "masks" / "study_0255_mask.nii.gz", np.ones((8, 8, 8)))
    (tmp_path / "set" / "studies").mkdir()
    (tmp_path / "set" / "studies" / "CT-1").symlink_to(tmp_path / "disk")
    volume(tmp_path / "set" / "studies" / "@eaDir" / "study_0255.nii.gz", np.ones((8, 8, 8)))
    samples = source_samples(LocalDataset(REGISTRY["mosmed"], tmp_path / "set"))
    assert {sample.patient for sample in samples} == {"mosmed-255"} and len(samples) == 8
    assert caplog.messages[-1].endswith("left out: 1 hidden file (studies/@eaDir/study_0255.nii.gz)")


def test_sets_without_masks(tmp_path):
    picture(tmp_path / "covid" / "CT_COVID" / "a.png")
    picture(tmp_path / "noncovid" / "CT_NonCOVID" / "b.jpg")
    picture(tmp_path / "covid" / "__MACOSX" / "._a.png")
    samples = source_samples(LocalDataset(REGISTRY["covid_ct"], tmp_path))
    assert [sample.mask for sample in samples] == [None, None]


def test_repeated_case_is_refused(tmp_path):
    for part in ("one", "two"):
        for kind in ("image", "label"):
            volume(tmp_path / part / f"ct_train_1001_{kind}.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(UserError, match=r"two/ct_train_1001_label.nii.gz: is the same case as .*one"):
        source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))


def test_a_folder_of_another_set_does_not_fit(tmp_path):
    assert not matches(REGISTRY["mm_whs"], tmp_path / "missing")
    picture(tmp_path / "frames" / "a.png")
    assert not matches(REGISTRY["mm_whs"], tmp_path)
    with pytest.raises(UserError, match="does not look like mm_whs; expected ct_train/"):
        source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))


def test_plain_pairs_are_taken_for_any_set(tmp_path):
    picture(tmp_path / "images" / "p1_1.png")
    picture(tmp_path / "masks" / "p1_1.png", value=205)
    samples = source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))
    assert [(sample.patient, sample.mask_values) for sample in samples] == [
        ("mm_whs-p1", (205, 420, 500, 550, 600, 820, 850))
    ]


def training_zip(path):
    """An archive like COVID-SemiSeg's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.parent / "picture.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(picture)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("Doctor-label", "Pseudo-label"):
            for kind, suffix in (("Imgs", "jpg"), ("GT", "png"), ("Edge", "png")):
                name = f"Data-1_coronacases_org_001_1.{suffix}"
                archive.write(picture, f"LungInfection-Train/{part}/{kind}/{name}")
    picture.unlink()


@pytest.fixture
def fetched(monkeypatch):
    """Replaces the network: each download writes COVID-SemiSeg's archive."""
    urls = []

    def fake(url, target, sha256=None, md5=None, *, progress=True):
        urls.append(url)
        training_zip(target)
        return Digests("ab" * 32, "cd" * 16)

    monkeypatch.setattr(module, "download", fake)
    return urls


def test_download_unpack_arrange_and_find(fetched, tmp_path, capsys):
    dataset = REGISTRY["covid_semiseg"]
    folder = obtain(dataset, tmp_path, progress=False)
    assert folder == tmp_path / "covid_semiseg"
    for place in ("doctor/images", "doctor/masks", "pseudo/images", "pseudo/masks"):
        assert len(list((folder / place).iterdir())) == 1
    assert f"LungInfection-Train.zip: sha256 {'ab' * 32}" in capsys.readouterr().out
    assert fetched == ["http://dpfan.net/wp-content/uploads/LungInfection-Train.zip"]
    obtain(dataset, tmp_path, progress=False)
    assert len(fetched) == 1  # found, not fetched again


def test_download_that_holds_something_else(fetched, tmp_path):
    with pytest.raises(UserError, match="does not hold what was expected"):
        obtain(replace(REGISTRY["cncb_lesions"]), tmp_path, progress=False)


def test_set_for_sign_up_is_explained(tmp_path, capsys):
    with pytest.raises(UserError, match="mosmed: no such folder; download the set by hand"):
        obtain(REGISTRY["mosmed"], tmp_path)
    told = capsys.readouterr().out
    assert "https://mosmed.ai/datasets/covid19_1110/" in told and "sign-up" in told
    assert "CC BY-NC-ND 3.0" in told and "study_0255" in told and f"{tmp_path / 'mosmed'}\n" in told


def test_wrong_folder_is_named(tmp_path):
    (tmp_path / "mosmed").mkdir()
    with pytest.raises(UserError, match="mosmed: does not look like mosmed"):
        obtain(REGISTRY["mosmed"], tmp_path)


def test_root_itself_is_the_set_only_where_allowed(tmp_path):
    (tmp_path / "doctor").mkdir()
    dataset = replace(REGISTRY["covid_semiseg"], files=())
    assert obtain(dataset, tmp_path, root_is_set=True) == tmp_path
    with pytest.raises(UserError, match="no such folder"):
        obtain(dataset, tmp_path)


def test_arrange_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"0 folders match unpacked/\*\*/Doctor-label/Imgs"):
        arrange(REGISTRY["covid_semiseg"], tmp_path)


def test_table_lists_every_set_once():
    lines = format_registry(REGISTRY).splitlines()
    assert [line.split()[0] for line in lines[1:]] == sorted(REGISTRY)
    assert "not confirmed" in instructions(REGISTRY["covid_ct"], "data")

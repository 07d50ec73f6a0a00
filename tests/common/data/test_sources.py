import numpy as np
import pytest
from PIL import Image

from common.data.registry import load_registry
from common.data.sources import Source, fits, source_samples
from common.errors import UserError

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
    samples = source_samples(Source(REGISTRY["covid_lesion_collection"], tmp_path))
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
    sources = [Source(REGISTRY[name], tmp_path / part) for part, name in names.items()]
    samples = [sample for source in sources for sample in source_samples(source)]
    assert {sample.patient for sample in samples} == {"coronacases-1"}
    assert len(samples) == 1 + 1 + 8


def test_stack_of_slices_of_many_patients(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    samples = source_samples(Source(REGISTRY["medseg_100"], tmp_path))
    assert [sample.index for sample in samples] == [0, 1, 2]
    assert len({sample.patient for sample in samples}) == 3
    assert samples[0].mask_values == (1, 2, 3)


def test_own_foreground_leaves_other_values_as_background(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    sample = source_samples(Source(REGISTRY["medseg_100"], tmp_path, foreground=(1, 2)))[0]
    assert sample.mask_values == (1, 2) and 3 in sample.mask_background


def test_images_without_mask_are_left_out_and_counted(tmp_path, caplog):
    studies = tmp_path / "studies" / "CT-1"
    for number in (254, 255):
        volume(studies / f"study_0{number}.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "masks" / "study_0255_mask.nii.gz", np.ones((8, 8, 8)))
    samples = source_samples(Source(REGISTRY["mosmed"], tmp_path))
    assert {sample.patient for sample in samples} == {"mosmed-255"}
    assert "1 of 2 images have no mask" in caplog.text


def test_sets_without_masks(tmp_path):
    picture(tmp_path / "covid" / "CT_COVID" / "a.png")
    picture(tmp_path / "noncovid" / "CT_NonCOVID" / "b.jpg")
    picture(tmp_path / "covid" / "__MACOSX" / "._a.png")
    samples = source_samples(Source(REGISTRY["covid_ct"], tmp_path))
    assert [sample.mask for sample in samples] == [None, None]


def test_repeated_case_is_refused(tmp_path):
    for part in ("one", "two"):
        for kind in ("image", "label"):
            volume(tmp_path / part / f"ct_train_1001_{kind}.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(UserError, match=r"two/ct_train_1001_label.nii.gz: is the same case as .*one"):
        source_samples(Source(REGISTRY["mm_whs"], tmp_path))


def test_a_folder_of_another_set_does_not_fit(tmp_path):
    assert not fits(REGISTRY["mm_whs"], tmp_path / "missing")
    picture(tmp_path / "frames" / "a.png")
    assert not fits(REGISTRY["mm_whs"], tmp_path)
    with pytest.raises(UserError, match="does not look like mm_whs; expected ct_train/"):
        source_samples(Source(REGISTRY["mm_whs"], tmp_path))


def test_plain_pairs_are_taken_for_any_set(tmp_path):
    picture(tmp_path / "images" / "p1_1.png")
    picture(tmp_path / "masks" / "p1_1.png", value=205)
    samples = source_samples(Source(REGISTRY["mm_whs"], tmp_path))
    assert [(sample.patient, sample.mask_values) for sample in samples] == [
        ("mm_whs-p1", (205, 420, 500, 550, 600, 820, 850))
    ]

"""Evaluation, inference and resumed runs take up what training left behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import RandAdjustContrastd, RandAffined, RandGaussianNoised
from PIL import Image

from common.data.replay import flatten_transforms
from common.data.splits import drawn
from common.files import read_json
from tests.bundles.conftest import Trained
from tests.bundles.pix2pix_covid.case import BUNDLE, CASE, CONFIGS, arguments
from tests.bundles.runs import Run, forked

METRICS = {
    *("fid_gridvgg", "kid_gridvgg", "lesion_faithfulness", "lesion_contrast_error"),
    *("ssim", "psnr", "mae", "mse"),
}
# An oblique scan with its first axis to the right and its third to the feet.
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN @ np.diag([9.0, -11.0, -5.0]), (-120, 80, 33)


def lesion(shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[5:14, 8:12] = 1
    mask[10:14, 8:20] = 1
    return mask


def infer(trained: Trained, masks: Path, output: Path, **more: object) -> Run:
    settings = {"ckpt_path": trained[0] / "models" / "model.pt", "input_dir": masks, "output_dir": output}
    settings |= more
    return forked(arguments("inference", "inference", **settings), output.with_name("inference"))


def test_the_model_knows_how_it_was_made(trained: Trained, data: Path) -> None:
    path = trained[0] / "models" / "model.pt"
    info = read_json(path.with_suffix(".json"))
    assert info["window_hu"] == [-1000, 400] and info["nominal_hu"] is False
    assert (info["fit"], info["empty_masks"]) == ("pad", "drop")
    assert info["image_size"] == 32 and info["standardiser"]["method"] == "landmarks"
    assert info["slices"] == {"train": 20, "val": 8, "test": 4}
    assert (info["iteration"], info["epoch"]) == (20, 2)
    assert set(info["metrics"]) == {"fid_gridvgg", "lesion_faithfulness"}
    assert (info["network"]["arguments"]["levels"], info["network"]["arguments"]["ngf"]) == (5, 4)


def test_evaluating_writes_metrics_with_baselines_and_pictures(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    settings = {"dataset_dir": data, "output_dir": folder}
    run = forked(arguments("evaluating", "evaluate", **settings), tmp_path / "evaluating")
    assert run.code == 0, run.err
    result = read_json(folder / "eval" / "metrics.json")
    assert set(result["metrics"]) >= METRICS
    assert result["leading"] == ["fid_gridvgg", "lesion_faithfulness"]
    for name, metric in result["metrics"].items():
        assert len(metric["baselines"]) == 4, name
        for values in (metric, *metric["baselines"].values()):
            assert set(values) >= {"mean", "interval", "n", "patients"}
            assert values["patients"] is None or values["patients"] > 2 or values["interval"] is None
        assert name in run.out
    assert result["metrics"]["mae"]["n"] == 4
    for name in ("panel.png", "convergence.png"):
        with Image.open(folder / "eval" / name) as picture:
            assert min(picture.size) > 100


def test_pictures_keep_names_and_sizes(trained: Trained, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, shape in (("first", (40, 28)), ("second.b", (32, 32))):
        Image.fromarray(lesion(shape) * np.uint8(255)).save(masks / f"{name}.png")
    run = infer(trained, masks, tmp_path / "out")
    assert run.code == 0, run.err
    found = {}
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as picture:
            assert picture.info["Description"].startswith("synthetic, pix2pix_covid ")
            found[path.name] = (picture.size, picture.mode, bool(np.ptp(np.asarray(picture)) > 0))
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"first.json", "second.b.json"}
    assert found == {"first.png": ((28, 40), "L", True), "second.b.png": ((32, 32), "L", True)}


def test_texture_goes_by_the_files_name_and_the_seed_not_by_the_batch(
    trained: Trained, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(lesion((32, 32)) * np.uint8(255)).save(masks / f"{name}.png")
    made = {}
    for folder, settings in (("first", {}), ("again", {"batch_size": 2}), ("other", {"seed": 1})):
        run = infer(trained, masks, tmp_path / folder, **settings)
        assert run.code == 0, run.err
        for path in sorted((tmp_path / folder).glob("*.png")):
            with Image.open(path) as picture:
                made[folder, path.stem] = np.asarray(picture).astype(int)
    for name in ("a", "b", "c"):
        assert np.abs(made["first", name] - made["again", name]).max() <= 1  # sums in another order
        assert (made["first", name] != made["other", name]).mean() > 0.3
    assert (made["first", "a"] != made["first", "b"]).mean() > 0.3  # the same mask, another patient


def test_volumes_keep_geometry_and_carry_hu(trained: Trained, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    volume = np.stack([lesion((36, 30)), lesion((36, 30))[::-1], lesion((36, 30)) * 0], axis=-1)
    written = {
        "volume": nib.Nifti1Image(volume, OBLIQUE),
        "turned": nib.as_closest_canonical(nib.Nifti1Image(volume, OBLIQUE)),
        "slice": nib.Nifti1Image(lesion((36, 30)), OBLIQUE),
    }
    for name, image in written.items():
        nib.save(image, masks / f"{name}.nii.gz")
    run = infer(trained, masks, tmp_path / "out")
    assert run.code == 0, run.err
    for name, mask in written.items():
        ct = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert ct.get_data_dtype() == np.int16 and ct.shape == mask.shape
        np.testing.assert_allclose(ct.affine, mask.affine, atol=1e-4)
        values = np.asarray(ct.dataobj)
        assert values.min() >= -1000 and values.max() <= 400 and np.ptp(values) > 0
    # The same scan stored with other axes, under the same name, gives the same scan.
    (tmp_path / "again").mkdir()
    (masks / "turned.nii.gz").rename(tmp_path / "again" / "volume.nii.gz")
    run = infer(trained, tmp_path / "again", tmp_path / "out_again")
    assert run.code == 0, run.err
    one, other = (nib.load(tmp_path / part / "volume.nii.gz") for part in ("out", "out_again"))
    np.testing.assert_array_equal(nib.as_closest_canonical(one).get_fdata(), other.get_fdata())


@pytest.fixture
def changed(data: Path, trained: Trained, tmp_path: Path) -> Path:
    """The training's data without one training patient, with a new one that a split anew would test on."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    gone = splits(trained)["train"][0]
    new = next(name for name in (f"patient_{n}" for n in range(900, 999)) if drawn(name, 0) > 0.85)
    for part in ("images", "masks"):
        (copy / part / f"{gone}.nii.gz").rename(copy / part / f"{new}.nii.gz")
    return copy


def splits(trained: Trained) -> dict[str, list[str]]:
    found = read_json(trained[0] / "models" / "model.json")["splits"]
    assert found == read_json(trained[0] / "models" / "split.json")["splits"]
    return dict(found)


def evaluated(folder: Path, log: Path, **settings: Path) -> Run:
    return forked(arguments("evaluating", "evaluate", output_dir=folder, **settings), log)


def test_one_patient_more_and_one_less(trained: Trained, changed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    done = evaluated(folder, tmp_path / "log", dataset_dir=changed)
    assert done.code == 0, done.err
    assert "1 patients are not in the model's split and left out, as patient_9" in done.out + done.err
    assert read_json(folder / "eval" / "metrics.json")["metrics"]["mae"]["n"] == 4
    own = {name: len(part) for name, part in splits(trained).items()}
    assert own == {"train": 5, "val": 2, "test": 1}
    assert "train 16 slices of 4 patients, val 8 slices of 2 patients, test 4 slices" in done.out + done.err


def test_training_patients_are_refused(trained: Trained, data: Path, changed: Path, tmp_path: Path) -> None:
    """Even one that is no longer in the training's folder."""
    gone, others = splits(trained)["train"][0], tmp_path / "others"
    for part in ("images", "masks"):
        (others / part).mkdir(parents=True)
        shutil.copy(data / part / f"{gone}.nii.gz", others / part)
    refused = evaluated(trained[0], tmp_path / "log", dataset_dir=changed, heldout_dir=others)
    assert f"{others}: patient {gone} is in the training split too" in refused.error


def test_a_run_is_resumed_with_its_own_patients_only(trained: Trained, data: Path, tmp_path: Path) -> None:
    """As many slices as before, of somebody else."""
    folder, copy = tmp_path / "run", tmp_path / "data"
    shutil.copytree(trained[0], folder)
    shutil.copytree(data, copy)
    gone = splits(trained)["train"][0]
    new = next(name for name in (f"patient_{n}" for n in range(900, 999)) if drawn(name, 0) < 0.7)
    for part in ("images", "masks"):
        (copy / part / f"{gone}.nii.gz").rename(copy / part / f"{new}.nii.gz")
    refused = forked(CASE.training(copy, folder, max_epochs=3, resume=True), tmp_path / "log")
    assert f"split.json: patient {gone} was in train when the run began, no part now (2 such" in refused.error


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The file as the README has it."""
    readme = (CASE.root / "docs" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n# my_transforms\.yaml\n(.*?)```", readme, re.DOTALL)
    assert block.count("\n") == 9
    path = tmp_path / "my_transforms.yaml"
    path.write_text(block)
    return path


def test_the_readmes_overlay_adds_transforms_and_trains(overlay: Path, data: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([CONFIGS / "train.yaml", overlay])
    kinds = [type(step) for step in flatten_transforms(parser.get_parsed_content("augmentation"))]
    assert kinds[0] is RandAffined and kinds[2:] == [RandGaussianNoised, RandAdjustContrastd]
    files = str([str(CONFIGS / "train.yaml"), str(overlay)])
    parts = CASE.training(data, tmp_path / "run")
    parts[parts.index("--config_file") + 1] = files
    run = forked(parts, tmp_path / "log")
    assert run.code == 0, run.err
    recorded = read_json(tmp_path / "run" / "models" / "model.json")["preprocessing"]
    assert [entry["target"].split(".")[-1] for entry in recorded] == [
        *("LoadSliced", "WindowHUd", "FitSquared", "StandardizeIntensityd", "ScaleIntensityRanged")
    ]


WEIGHTS = BUNDLE / "models" / "model.pt"


def made_mask(path: Path) -> None:
    """A lesion low in the picture's left half."""
    mask = np.zeros((128, 128), np.uint8)
    mask[75:88, 30:48] = 255
    path.parent.mkdir(parents=True)
    Image.fromarray(mask).save(path)


def test_they_draw_a_chest_around_the_mask(tmp_path: Path) -> None:
    made_mask(tmp_path / "masks" / "case1.png")
    drawn = []
    for name in ("one", "two"):
        given = {
            "ckpt_path": WEIGHTS,
            "input_dir": tmp_path / "masks",
            "output_dir": tmp_path / name,
            "device": "cpu",
        }
        run = forked(CASE.arguments("inference", "inference", **given), tmp_path / f"log_{name}")
        assert run.code == 0, run.err
        drawn.append((tmp_path / name / "case1.png").read_bytes())
    assert drawn[0] == drawn[1]
    slice_ = np.asarray(Image.open(tmp_path / "one" / "case1.png"), dtype=float)
    healthy, lesion, heart = slice_[45:60, 95:105], slice_[75:88, 30:48], slice_[40:60, 62:72]
    assert healthy.mean() + 40 < lesion.mean() < heart.mean()  # aerated lung, opacity, soft tissue
    assert slice_[:4, :4].max() < 30  # air around the body


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_pairs_train_and_the_doctors_masks_become_slices(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "covid_lesions"
    small = {"image_size": 64, "network_def#levels": 6, "network_def#ngf": 8, "discriminator_def#channels": 8}
    given = {**small, "max_epochs": 1, "dataset_dir": data, "output_dir": tmp_path / "run"}
    trained = forked(arguments("training", "train", **given), tmp_path / "training")
    assert trained.code == 0, trained.err
    info = read_json(tmp_path / "run" / "models" / "model.json")
    assert info["nominal_hu"] is True and info["slices"]["doctor"] == 50
    masks = data / "doctor" / "masks"
    model = tmp_path / "run" / "models" / "model.pt"
    settings = {"ckpt_path": model, "input_dir": masks, "output_dir": tmp_path / "out"}
    generated = forked(arguments("inference", "inference", **settings), tmp_path / "inference")
    assert generated.code == 0, generated.err
    assert "HU in its output are nominal" in generated.out + generated.err
    written = {path.name: pixels(path) for path in (tmp_path / "out").glob("*.png")}
    assert len(written) == 50
    assert set(written) == {f"{path.stem}.png" for path in masks.iterdir()}
    assert all(picture.shape[:2] == pixels(masks / name).shape[:2] for name, picture in written.items())
    assert np.mean([np.ptp(picture) for picture in written.values()]) > 20

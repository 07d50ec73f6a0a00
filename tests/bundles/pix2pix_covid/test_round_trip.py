"""Evaluating and inference take up what training left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from common.files import read_json
from tests.bundles.pix2pix_covid.case import arguments
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]
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


def test_the_model_knows_how_it_was_made(trained: Trained, pairs: Path) -> None:
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
    trained: Trained, pairs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    settings = {"dataset_dir": pairs, "output_dir": folder}
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

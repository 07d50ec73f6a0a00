from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.phantoms import writing
from common.data.phantoms.lesions import lesion_share
from common.data.phantoms.render import make_phantom
from common.data.phantoms.writing import PhantomSettings, ensure_phantoms, write_phantoms
from common.errors import UserError
from common.files import read_json

SHAPE = (32, 24, 8)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_layout_and_record(tmp_path: Path) -> None:
    folder = ensure_phantoms(tmp_path / "phantoms", patients=2, seed=5, shape=SHAPE)
    assert folder == tmp_path / "phantoms"
    kinds = ("images", "labels/heart", "labels/lung", "labels/nodule", "masks")
    expected = [f"{kind}/phantom_{n:03d}.nii.gz" for kind in kinds for n in range(2)] + ["phantom.json"]
    assert sorted(files(folder)) == sorted(expected)
    record = read_json(folder / "phantom.json")
    assert record["settings"]["seed"] == 5 and record["settings"]["shape"] == list(SHAPE)
    assert [patient["name"] for patient in record["patients"]] == ["phantom_000", "phantom_001"]


def test_two_contrasts_lie_in_two_folders_under_one_name(tmp_path: Path) -> None:
    folder = ensure_phantoms(tmp_path / "phantoms", patients=2, seed=5, shape=SHAPE, contrasts=True)
    made = make_phantom(5, 1, SHAPE, contrasts=True)
    image, native = (nib.load(folder / kind / "phantom_001.nii.gz") for kind in ("images", "native"))
    assert made.native is not None and native.get_data_dtype() == np.int16
    assert image.header["descrip"].item() == b"synthetic, drawn phantom"
    assert np.array_equal(np.asanyarray(image.dataobj), made.image)
    assert np.array_equal(np.asanyarray(native.dataobj), made.native)
    assert np.array_equal(image.affine, native.affine)
    assert read_json(folder / "phantom.json")["settings"]["contrasts"] is True
    assert ensure_phantoms(tmp_path / "phantoms", patients=2, seed=5, shape=SHAPE) != folder


def test_settings_without_contrasts_keep_their_record() -> None:
    """Folders made before there was a second contrast stay valid, byte for byte and by name."""
    assert "contrasts" not in PhantomSettings().record()
    assert PhantomSettings().short_hash() == "5116c4c4"
    assert PhantomSettings(contrasts=True).short_hash() != "5116c4c4"


def test_nifti_keeps_voxels_spacing_and_affine(tmp_path: Path) -> None:
    folder = ensure_phantoms(tmp_path / "phantoms", patients=2, seed=5, shape=SHAPE)
    made = make_phantom(5, 1, SHAPE)
    image = nib.load(folder / "images" / "phantom_001.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asanyarray(image.dataobj), made.image)
    assert image.header.get_zooms() == pytest.approx((11.25, 15.0, 30.0))
    assert np.allclose(image.affine, made.affine, atol=1e-4)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
    for name, place in writing.LABEL_FOLDERS.items():
        label = nib.load(folder / place / "phantom_001.nii.gz")
        assert label.get_data_dtype() == np.uint16
        assert np.array_equal(np.asanyarray(label.dataobj), made.labels[name])


def test_second_call_touches_nothing_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ensure_phantoms(tmp_path / "phantoms", patients=1, shape=SHAPE)
    before = files(folder)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert ensure_phantoms(tmp_path / "phantoms", patients=1, shape=SHAPE) == folder
    assert files(folder) == before
    assert "PHANTOM DATA" in caplog.text


def test_other_settings_go_to_a_sibling(tmp_path: Path) -> None:
    first = ensure_phantoms(tmp_path / "phantoms", patients=1, shape=SHAPE)
    before = files(first)
    second = ensure_phantoms(tmp_path / "phantoms", patients=1, seed=1, shape=SHAPE)
    assert second.parent == first.parent and second.name.startswith("phantoms-")
    assert ensure_phantoms(tmp_path / "phantoms", patients=1, seed=1, shape=SHAPE) == second
    assert files(first) == before
    other = ensure_phantoms(tmp_path / "other", patients=1, shape=SHAPE)  # equal settings, equal bytes
    assert {k: v[1] for k, v in files(first).items()} == {k: v[1] for k, v in files(other).items()}


def test_a_users_files_are_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "phantoms"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    assert ensure_phantoms(place, patients=1, shape=SHAPE) != place
    assert list(files(place)) == ["notes.txt"]


def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    saved = writing.save_phantom
    monkeypatch.setattr(writing, "save_phantom", fail)
    with pytest.raises(UserError, match="No space left"):
        ensure_phantoms(tmp_path / "phantoms", patients=2, shape=SHAPE)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(writing, "save_phantom", saved)
    assert (ensure_phantoms(tmp_path / "phantoms", patients=1, shape=SHAPE) / "phantom.json").is_file()


def test_a_second_process_that_finished_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PhantomSettings(patients=1, shape=SHAPE)
    write_phantoms(tmp_path / "phantoms", settings)
    before = files(tmp_path / "phantoms")
    write_phantoms(tmp_path / "phantoms", settings)
    assert files(tmp_path / "phantoms") == before
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]


@pytest.mark.parametrize("bad", [{"patients": 0}, {"shape": (64, 64)}, {"shape": (64, 64, 2)}])
def test_bad_settings_are_one_line(tmp_path: Path, bad: dict[str, object]) -> None:
    with pytest.raises(UserError):
        ensure_phantoms(tmp_path / "phantoms", **{"patients": 1, **bad})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_lesion_share_counts_slices() -> None:
    label = np.zeros((4, 4, 5), np.uint16)
    label[1, 2, 0] = 1
    label[:, :, 3] = 2
    assert lesion_share(label) == pytest.approx(0.4)

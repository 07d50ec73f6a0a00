from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.intensity import Window
from common.data.structures import LabelSet
from common.errors import UserError
from common.trust.reading import ReadingSettings, read_set
from tests.common.trust.folders import SIDE, pictures, shard, textures, volume

SMALL = ReadingSettings(image_size=SIDE)


def test_pictures_as_the_network_sees_them(tmp_path: Path) -> None:
    found = read_set(pictures(tmp_path, 3, 0), SMALL)
    expected = textures(3, 0).astype(np.float32) / 255 * 2 - 1
    assert found.images.shape == (3, 1, SIDE, SIDE) and found.images.dtype == torch.float32
    np.testing.assert_allclose(found.images[:, 0].numpy(), expected, atol=1e-6)
    assert list(found.names) == ["case0_000.png", "case1_000.png", "case2_000.png"]
    assert found.folder == str(tmp_path) and found.labels is None and found.structures == ()


def test_real_images_have_patients_and_synthetic_ones_are_their_own(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "deep", 2, 0, "case7_{0}")
    pictures(tmp_path / "b", 2, 1, "case8_{0}")
    pictures(tmp_path / "b", 1, 9, "grid")
    real, made = read_set(tmp_path, SMALL), read_set(tmp_path, SMALL, synthetic=True)
    assert list(real.patients) == ["case7", "case7", "case8", "case8"]
    assert list(made.patients) == list(made.names) == list(real.names)


def test_masks_in_the_folder_and_in_another(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "images", 3, 0)
    for place, side in enumerate((4, 8, 0)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:side, :side] = 255
        for folder in ("set/masks", "conditions"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / folder / f"case{place}_000.png")
    found = read_set(tmp_path / "set", SMALL)
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [16, 64]
    assert found.structures == ("lesion",) and len(found) == 2  # the third shows no lesion
    pictures(tmp_path / "made", 1, 5, "case1_000_variant02")
    pictures(tmp_path / "made", 1, 6, "case0_000")
    beside = read_set(tmp_path / "made", SMALL, tmp_path / "conditions", synthetic=True)
    assert beside.labels is not None and beside.labels.sum((1, 2, 3)).tolist() == [16, 64]


def test_volumes_give_their_labelled_or_all_or_central_slices(tmp_path: Path) -> None:
    hu = (textures(5, 0).astype(np.int16) * 5 - 1000).transpose(1, 2, 0)
    mask = np.zeros_like(hu, dtype=np.uint8)
    mask[2:6, 3:9, 1:3] = 1
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "masks" / "p1.nii.gz", mask)
    window = Window(-1000, 275)
    labelled = read_set(tmp_path, ReadingSettings(SIDE, window))
    np.testing.assert_allclose(labelled.images[:, 0].numpy(), textures(5, 0)[1:3] / 127.5 - 1, atol=1e-5)
    assert list(labelled.names) == ["images/p1.nii.gz#001", "images/p1.nii.gz#002"]
    assert len(read_set(tmp_path, ReadingSettings(SIDE, window, slices="all"))) == 5
    with pytest.raises(UserError, match="holds 1 image"):
        read_set(tmp_path, ReadingSettings(SIDE, window, slices="central"))


def test_shards_with_masks_and_patients(tmp_path: Path) -> None:
    hu = textures(3, 0).astype(np.int16) * 5 - 1000
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4, 5:9] = 2
    lungs = ["p1", "p2", "p1"]
    samples = {
        f"{place:09d}": {"image.npy": image, "mask.npy": mask, "json": {"normal": {"patient": lung}}}
        for place, (image, lung) in enumerate(zip(hu, lungs, strict=True))
    }
    shard(tmp_path / "000000.tar", samples)
    found = read_set(tmp_path, ReadingSettings(SIDE, Window(-1000, 275)))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(3, 0) / 127.5 - 1, atol=1e-5)
    assert list(found.patients) == lungs and found.names[2] == "000000.tar#000000002"
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [4, 4, 4]
    assert list(read_set(tmp_path, SMALL, synthetic=True).patients) != lungs


def test_label_maps_go_through_the_store(tmp_path: Path) -> None:
    hu = (textures(4, 0).astype(np.int16) * 3 - 200).transpose(1, 2, 0)
    label = np.zeros_like(hu, dtype=np.uint8)
    label[2:6, 3:9, 1:4], label[10:12, 3:9, 2] = 1, 5
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "labels" / "p1.nii.gz", label)
    info = {
        "image_size": SIDE,
        "intensity": {"kind": "window", "lower": -200, "upper": 565},
        "label_set": LabelSet().state(),
    }
    found = read_set(tmp_path, ReadingSettings.of(info))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(4, 0)[1:] / 127.5 - 1, atol=1e-4)
    assert found.labels is not None and found.structures[:2] == ("LV", "RV")
    assert [sorted(part.unique().tolist()) for part in found.labels] == [[0, 1], [0, 1, 5], [0, 1]]
    alone = read_set(tmp_path / "images", ReadingSettings.of(info), synthetic=True)
    assert len(alone) == 4 and alone.labels is None


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: no such folder"):
        read_set(tmp_path / "missing", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images found"):
        read_set(tmp_path / "empty", SMALL)
    with pytest.raises(UserError, match="one: holds 1 image; at least 2"):
        read_set(pictures(tmp_path / "one", 1, 0), SMALL, synthetic=True)
    folder = pictures(tmp_path / "cut", 2, 0)
    (folder / "case1_000.png").write_bytes((folder / "case1_000.png").read_bytes()[:90])
    with pytest.raises(UserError, match=r"case1_000.png: cannot be read"):
        read_set(folder, SMALL, synthetic=True)
    values = textures(2, 0).astype(np.float32) / 255
    values[1, 3, 4] = np.nan
    (tmp_path / "nan").mkdir()
    np.save(tmp_path / "nan" / "made.npy", values)
    with pytest.raises(UserError, match=r"made.npy#000001: holds NaN"):
        read_set(tmp_path / "nan", SMALL)
    with pytest.raises(UserError, match=r"no label of that name in"):
        read_set(pictures(tmp_path / "two", 2, 0), SMALL, tmp_path / "nan")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000000.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"000000.tar: cannot be read"):
        read_set(tmp_path / "shards", SMALL)

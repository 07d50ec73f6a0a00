from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.intensity import Window
from common.errors import UserError
from common.trust.gate import Gate
from common.trust.image_sets import ImageSet, Sets
from common.trust.readers import ReadingSettings, read_set
from common.trust.release import release
from tests.common.trust import folders
from tests.common.trust.made import a_set, pictures

SETTINGS = ReadingSettings(32, Window(-1000, 275))


def gate(count: int, flagged: list[int]) -> Gate:
    similar = [0.99 if place in flagged else 0.2 for place in range(count)]
    return Gate("closed", 0.5, flagged, "made", similar, [place % 3 for place in range(count)], [1.5] * count)


def sets_of(synthetic: ImageSet) -> Sets:
    return Sets(a_set(pictures(3, 0), "real"), a_set(pictures(3, 1), "heldout"), synthetic)


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_are_copied_as_they_are_and_flagged_ones_left_out(tmp_path: Path) -> None:
    source = folders.pictures(tmp_path / "made", 4, 0)
    sets = sets_of(read_set(source, SETTINGS, synthetic=True))
    assert release(sets, gate(4, [1]), tmp_path / "out") == 3
    assert written(tmp_path / "out") == ["case0_000.png", "case2_000.png", "case3_000.png", "released.json"]
    name = "case2_000.png"
    assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    manifest = json.loads((tmp_path / "out" / "released.json").read_text())
    (row,) = manifest["left_out"]
    expected = {"image": "case1_000.png", "nearest": "real_001.png", "similarity": 0.99, "score": 1.5}
    assert row == {**expected, "why": "too similar"}
    assert manifest["threshold"] == 0.5 and len(manifest["released"]) == 3 and manifest["gate"] == "closed"
    assert release(sets, gate(4, [0, 1]), tmp_path / "out") == 2  # an earlier release is replaced
    assert written(tmp_path / "out") == ["case2_000.png", "case3_000.png", "released.json"]


def test_labels_go_with_their_images(tmp_path: Path) -> None:
    source = tmp_path / "made"
    folders.pictures(source / "images", 3, 0)
    (source / "labels").mkdir()
    for place in range(3):
        Image.fromarray(np.full((32, 32), 1, np.uint8)).save(source / "labels" / f"case{place}_000.png")
    release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, [0]), tmp_path / "out")
    kept = [f"{folder}/case{place}_000.png" for folder in ("images", "labels") for place in (1, 2)]
    assert written(tmp_path / "out") == [*kept, "released.json"]


def test_what_made_an_image_goes_with_it_and_no_list_takes_its_place(tmp_path: Path) -> None:
    source = folders.pictures(tmp_path / "made", 3, 0)
    for place in range(3):
        (source / f"case{place}_000.json").write_text(f'{{"seed": {place}}}')
    release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, [1]), tmp_path / "out")
    kept = [f"case{place}_000.{kind}" for place in (0, 2) for kind in ("json", "png")]
    assert written(tmp_path / "out") == [*kept, "released.json"]
    assert json.loads((tmp_path / "out" / "case2_000.json").read_text()) == {"seed": 2}
    for kind in ("png", "json"):
        (source / f"case0_000.{kind}").rename(source / f"released.{kind}")
    with pytest.raises(UserError, match=r"released\.png: its released\.json is called as the list"):
        release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, []), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_samples_of_shards_and_planes_of_stacks_are_written_apart(tmp_path: Path) -> None:
    hu = folders.textures(3, 0).astype(np.int16) * 5 - 1000
    mask = np.ones((32, 32), np.uint8)
    samples = {
        f"{place:09d}": {"image.npy": plane, "mask.npy": mask, "json": {}} for place, plane in enumerate(hu)
    }
    folders.shard(tmp_path / "shards" / "000000.tar", samples)
    release(sets_of(read_set(tmp_path / "shards", SETTINGS, synthetic=True)), gate(3, [0]), tmp_path / "out")
    files = [f"000000/{key:09d}.{kind}" for key in (1, 2) for kind in ("image.npy", "json", "mask.npy")]
    assert written(tmp_path / "out") == [*files, "released.json"]
    (tmp_path / "stack").mkdir()
    np.save(tmp_path / "stack" / "all.npy", hu)
    release(
        sets_of(read_set(tmp_path / "stack", SETTINGS, synthetic=True)), gate(3, [2]), tmp_path / "planes"
    )
    assert written(tmp_path / "planes") == ["all/000000.npy", "all/000001.npy", "released.json"]
    assert np.array_equal(np.load(tmp_path / "planes" / "all" / "000001.npy"), hu[1])


def test_one_flagged_slice_leaves_its_volume_out(tmp_path: Path) -> None:
    hu = (folders.textures(3, 0).astype(np.int16) * 5 - 1000).transpose(1, 2, 0)
    for name in ("a", "b"):
        folders.volume(tmp_path / "made" / f"{name}.nii.gz", hu)
    sets = sets_of(read_set(tmp_path / "made", SETTINGS, synthetic=True))
    assert len(sets.synthetic) == 6
    assert release(sets, gate(6, [1]), tmp_path / "out") == 3
    assert written(tmp_path / "out") == ["b.nii.gz", "released.json"]
    rows = json.loads((tmp_path / "out" / "released.json").read_text())["left_out"]
    other = "another slice of its volume is"
    assert [row["why"] for row in rows] == [other, "too similar", other]


def test_nothing_is_written_where_nothing_is_left_or_others_files_are(tmp_path: Path) -> None:
    sets = sets_of(read_set(folders.pictures(tmp_path / "made", 2, 0), SETTINGS, synthetic=True))
    with pytest.raises(UserError, match="all 2 images are near to training images"):
        release(sets, gate(2, [0, 1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="holds other files"):
        release(sets, gate(2, [0]), tmp_path / "made")

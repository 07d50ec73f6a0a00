from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.composition.formats import Format
from bundles.lung_two_stage.composition.shards import Member, ShardSet
from common.data.intensity import Window
from common.errors import UserError
from common.files import write_json
from common.trust.settings import ReadingSettings
from common.trust.shards import shard_slices
from tests.common.trust.folders import shard, textures

SETTINGS = ReadingSettings(32, Window(-1000, 275))


@pytest.mark.parametrize("name", ["npy", "png", "png16", "nifti"])
def test_what_the_two_stage_bundle_writes(tmp_path: Path, name: str) -> None:
    """In each of its formats, in Hounsfield units, the right way up."""
    hu, form = textures(2, 0).astype(np.int16) * 5 - 1000, Format(name)
    mask = np.zeros((32, 32), np.uint8)
    mask[3, 5:9] = 1
    members = [
        Member(
            number,
            {
                f"image.{form.suffix}": form.image(plane, 0.7),
                f"mask.{form.suffix}": form.mask(mask, 0.7),
                "json": b'{"normal": {"patient": "p%d"}}' % number,
            },
        )
        for number, plane in enumerate(hu)
    ]
    ShardSet(tmp_path, 2, 2).write(0, members)
    greys = form.greys
    limits = None if greys is None else [greys.lower, greys.upper]
    write_json(tmp_path / "composites.json", {"window_hu": limits})
    found = shard_slices(tmp_path, SETTINGS)
    for each, plane in zip(found, textures(2, 0), strict=True):
        np.testing.assert_allclose(each.unit, plane / 255, atol=0.003)
        assert each.is_hu and each.label is not None and np.array_equal(each.label, mask)
    assert [each.patient for each in found] == ["p0", "p1"]


def test_samples_without_image_or_with_another_mask_are_named(tmp_path: Path) -> None:
    plane = np.zeros((8, 8), np.int16)
    shard(tmp_path / "a.tar", {"000": {"mask.npy": plane, "json": {}}})
    with pytest.raises(UserError, match=r"a.tar#000: has no image among mask.npy, json"):
        shard_slices(tmp_path, SETTINGS)
    shard(tmp_path / "a.tar", {"000": {"npy": plane, "mask.npy": plane[:4]}})
    with pytest.raises(UserError, match=r"a.tar#000: the mask is \(4, 8\)"):
        shard_slices(tmp_path, SETTINGS)


def test_a_bare_array_is_the_image_and_its_own_patient(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"x/007": {"npy": np.full((8, 8), -1000, np.int16)}})
    (found,) = shard_slices(tmp_path, SETTINGS)
    assert found.name == found.patient == "a.tar#007" and found.label is None and found.unit.max() == 0

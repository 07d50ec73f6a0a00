"""Composites come back in order, by number and by parts, from every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.composition.formats import Format
from bundles.lung_two_stage.composition.reading import DESCRIPTION, Composites
from bundles.lung_two_stage.composition.shards import Member, ShardSet
from common.errors import UserError
from common.files import write_json

HU = np.arange(-400, -400 + 30, dtype=np.int16).reshape(5, 6)
MASK = (np.arange(30).reshape(5, 6) % 4).astype(np.uint8)


def composites(folder: Path, kind: Format) -> Composites:
    shards = ShardSet(folder, count=5, per_shard=2)
    for shard in range(len(shards)):
        members = [
            Member(
                number,
                {
                    f"image.{kind.suffix}": kind.image((HU + number).astype(np.int16), 0.7),
                    f"mask.{kind.suffix}": kind.mask(MASK, 0.7),
                    "json": json.dumps({"composite": number}).encode(),
                },
            )
            for number in shards.numbers(shard)
        ]
        shards.write(shard, members)
    shards.finish()
    window = None if kind.greys is None else [kind.greys.lower, kind.greys.upper]
    description = {"format": kind.name, "window_hu": window, "categories": ["solid"], "image_size": [5, 6]}
    write_json(folder / DESCRIPTION, description)
    return Composites(folder)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Format(), 0),
        (Format("nifti"), 0),
        (Format("png16"), 0),
        (Format("png"), 3),
        (Format("png", [-400, -300]), 0),
    ],
)
def test_they_come_back(tmp_path: Path, kind: Format, error: int) -> None:
    read = composites(tmp_path, kind)
    assert len(read) == 5 and read.categories == ["solid"] and read.image_size == (5, 6)
    everything = list(read)
    assert [one.record["composite"] for one in everything] == [0, 1, 2, 3, 4]
    for number in (4, 0, 3):
        for one in (everything[number], read[number]):
            assert one.image.dtype == np.int16 and one.mask.dtype == np.uint8
            assert np.abs(one.image.astype(int) - (HU + number)).max() <= error
            np.testing.assert_array_equal(one.mask, MASK)
            assert one.record == {"composite": number}


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    read = composites(tmp_path, Format())
    numbers = [[one.record["composite"] for one in read.part(part, 2)] for part in (0, 1)]
    assert numbers == [[0, 1, 4], [2, 3]]


def test_beyond_the_end(tmp_path: Path) -> None:
    read = composites(tmp_path, Format())
    for number in (5, -1):
        with pytest.raises(IndexError):
            read[number]


def test_a_damaged_shard_is_one_line(tmp_path: Path) -> None:
    read = composites(tmp_path, Format())
    (tmp_path / "000001.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"000001\.tar: cannot be read"):
        list(read)
    with pytest.raises(UserError, match=r"000001\.tar: cannot be read"):
        read[2]

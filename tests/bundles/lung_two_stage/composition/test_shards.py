"""Shards are whole or absent, always the same bytes, and plain tar files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundles.lung_two_stage.composition.shards import (
    DESCRIPTION,
    MANIFEST,
    Composites,
    FileFormat,
    Member,
    ShardSet,
    read_manifest,
)
from common.errors import UserError
from common.files import write_json


def samples(numbers: range) -> Iterator[Member]:
    for number in numbers:
        yield Member(number, {"image.npy": bytes([number]) * 700, "json": b"{}"})


def written(folder: Path, order: list[int]) -> ShardSet:
    shards = ShardSet(folder, count=7, per_shard=3)
    for shard in order:
        shards.write(shard, samples(shards.numbers(shard)))
    return shards


def test_the_manifest_tells_what_the_files_are(tmp_path: Path) -> None:
    shards = written(tmp_path, [0, 1, 2])
    assert len(shards) == 3 and shards.finish()
    lines = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()]
    assert [(line["name"], line["first"], line["count"]) for line in lines] == [
        ("000000.tar", 0, 3),
        ("000001.tar", 3, 3),
        ("000002.tar", 6, 1),
    ]
    for line in lines:
        content = (tmp_path / line["name"]).read_bytes()
        assert line["sha256"] == hashlib.sha256(content).hexdigest() and line["bytes"] == len(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(line["name"] for line in lines), MANIFEST]


def test_a_shard_is_a_plain_tar_file_in_the_webdataset_layout(tmp_path: Path) -> None:
    written(tmp_path, [1])
    with tarfile.open(tmp_path / "000001.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members][:3] == [
            "000000003.image.npy",
            "000000003.json",
            "000000004.image.npy",
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        file = tar.extractfile("000000005.image.npy")
        assert file is not None and file.read() == bytes([5]) * 700
    assert (tmp_path / "000001.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_the_order_of_writing_does_not_matter(tmp_path: Path) -> None:
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        assert written(tmp_path / name, order).finish()
    for name in ("000000.tar", "000001.tar", "000002.tar", MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_missing_is_known_while_it_is_written_and_afterwards(tmp_path: Path) -> None:
    shards = written(tmp_path, [1])
    assert shards.missing() == [0, 2] and not shards.finish()
    with pytest.raises(UserError, match="not finished"):
        read_manifest(tmp_path)
    assert written(tmp_path, [0, 2]).finish()
    (tmp_path / "000001.tar").unlink()
    (tmp_path / "000002.tar").write_bytes(b"cut")
    again = ShardSet(tmp_path, count=7, per_shard=3)
    assert again.missing() == [1, 2] and not again.finish()
    manifest = (tmp_path / MANIFEST).read_bytes()
    assert written(tmp_path, [1, 2]).finish() and (tmp_path / MANIFEST).read_bytes() == manifest


def test_a_failing_sample_leaves_no_shard(tmp_path: Path) -> None:
    def broken() -> Iterator[Member]:
        yield Member(0, {"json": b"{}"})
        raise OSError(28, "No space left on device")

    shards = ShardSet(tmp_path, count=7, per_shard=3)
    with pytest.raises(UserError, match=r"000000\.tar: the disk is full"):
        shards.write(0, broken())
    assert list(tmp_path.iterdir()) == [] and shards.missing() == [0, 1, 2]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"name": "a"}\n')
    with pytest.raises(UserError, match=r"manifest\.jsonl: damaged"):
        read_manifest(tmp_path)


HU = np.arange(-400, -400 + 30, dtype=np.int16).reshape(5, 6)
MASK = (np.arange(30).reshape(5, 6) % 4).astype(np.uint8)


def composites(folder: Path, kind: FileFormat) -> Composites:
    shards = ShardSet(folder, count=5, per_shard=2)
    for shard in range(len(shards)):
        members = [
            Member(
                number,
                {
                    f"image.{kind.suffix}": kind.encode_image((HU + number).astype(np.int16), 0.7),
                    f"mask.{kind.suffix}": kind.encode_mask(MASK, 0.7),
                    "json": json.dumps({"composite": number}).encode(),
                },
            )
            for number in shards.numbers(shard)
        ]
        shards.write(shard, members)
    shards.finish()
    window = None if kind.hu_window is None else [kind.hu_window.lower, kind.hu_window.upper]
    description = {"format": kind.name, "window_hu": window, "categories": ["solid"], "image_size": [5, 6]}
    write_json(folder / DESCRIPTION, description)
    return Composites(folder)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FileFormat(), 0),
        (FileFormat("nifti"), 0),
        (FileFormat("png16"), 0),
        (FileFormat("png"), 3),
        (FileFormat("png", [-400, -300]), 0),
    ],
)
def test_they_come_back(tmp_path: Path, kind: FileFormat, error: int) -> None:
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


def test_beyond_the_end(tmp_path: Path) -> None:
    read = composites(tmp_path, FileFormat())
    for number in (5, -1):
        with pytest.raises(IndexError):
            read[number]


def test_a_damaged_shard_is_one_line(tmp_path: Path) -> None:
    read = composites(tmp_path, FileFormat())
    (tmp_path / "000001.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"000001\.tar: cannot be read"):
        list(read)
    with pytest.raises(UserError, match=r"000001\.tar: cannot be read"):
        read[2]


SHOWN = np.array([[-1000, -650], [-300, 400], [3000, -2000]], np.int16)


def test_npy_is_what_numpy_writes() -> None:
    file = io.BytesIO()
    np.save(file, SHOWN)
    assert FileFormat().encode_image(SHOWN, 1.0) == file.getvalue()


def test_png_greys_are_the_windows() -> None:
    grey = np.asarray(Image.open(io.BytesIO(FileFormat("png").encode_image(SHOWN, 1.0))))
    np.testing.assert_array_equal(grey, [[0, 64], [128, 255], [255, 0]])  # -650 is a quarter of -1000..400
    wide = FileFormat("png16")
    assert np.asarray(Image.open(io.BytesIO(wide.encode_image(SHOWN, 1.0)))).dtype == np.uint16
    everything = np.arange(-1024, 3072, dtype=np.int16)[None]
    np.testing.assert_array_equal(wide.decode_image(wide.encode_image(everything, 1.0)), everything)


def test_nifti_has_the_spacing_and_the_patients_axes() -> None:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(FileFormat("nifti").encode_image(SHOWN, 0.7)))
    assert image.shape == (2, 3, 1) and image.get_data_dtype() == np.int16
    assert image.header.get_zooms()[:2] == pytest.approx((0.7, 0.7))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.asarray(image.dataobj)[1, 0, 0] == -650


def test_files_say_that_they_are_synthetic() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    png, wide = FileFormat("png"), FileFormat("png16")
    for content in (
        png.encode_image(SHOWN, 1.0),
        wide.encode_image(SHOWN, 1.0),
        png.encode_mask(labels, 1.0),
    ):
        text = Image.open(io.BytesIO(content)).info
        assert text == {"Description": "synthetic, lung_two_stage 0.1.0", "Software": "lung_two_stage 0.1.0"}
    for content in (
        FileFormat("nifti").encode_image(SHOWN, 0.7),
        FileFormat("nifti").encode_mask(labels, 0.7),
    ):
        header = nib.Nifti1Image.from_bytes(gzip.decompress(content)).header
        assert header["descrip"].item() == b"synthetic, lung_two_stage 0.1.0"


def test_masks_keep_their_values() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    for name in ("npy", "png", "png16", "nifti"):
        kind = FileFormat(name)
        np.testing.assert_array_equal(kind.decode_mask(kind.encode_mask(labels, 1.0)), labels)

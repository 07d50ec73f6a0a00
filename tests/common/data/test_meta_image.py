"""Headers of MetaImage files; what broken ones give is in test_bad_input."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.data.meta_image import meta_data_files, meta_header

HEADER = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 3\nElementType = MET_SHORT\n"


@pytest.mark.parametrize(
    ("ending", "names"),
    [
        ("ElementDataFile = a.raw\n", ["a.raw"]),
        ("ElementDataFile = LOCAL\n", []),
        ("ElementDataFile = LIST\ns1.raw\ns2.raw\n", ["s1.raw", "s2.raw"]),
        ("ElementDataFile = LIST 2D\r\ns2.raw\r\ns3.raw\r\n", ["s2.raw", "s3.raw"]),
        ("ElementDataFile = s%02d.raw 1 3 1\n", ["s1.raw", "s2.raw", "s3.raw"]),
        ("", []),
    ],
)
def test_the_files_that_hold_the_voxels(tmp_path: Path, ending: str, names: list[str]) -> None:
    for name in ("s1.raw", "s2.raw", "s3.raw", "other.raw"):
        (tmp_path / name).touch()
    (tmp_path / "a.mhd").write_text(HEADER + ending)
    assert meta_data_files(tmp_path / "a.mhd") == [tmp_path / name for name in names]


def test_a_header_ends_where_the_voxels_begin(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(HEADER.encode() + b"ElementDataFile = LOCAL\n\xff\nDimSize = 9 9 9\n")
    assert meta_header(tmp_path / "a.mha")["DimSize"] == "4 5 3"

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from common.sharing.archive import write_archive

CONTENTS = {"b.txt": b"second", "a/c.txt": b"first", "a.txt": b""}


def test_the_same_contents_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "one.zip", "top", CONTENTS)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    earlier = os.umask(0o077)
    try:
        write_archive(tmp_path / "two.zip", "top", dict(reversed(CONTENTS.items())))
    finally:
        os.umask(earlier)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_one_top_folder_in_order_with_fixed_times_and_permissions(tmp_path: Path) -> None:
    write_archive(tmp_path / "one.zip", "top", CONTENTS)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["top/a.txt", "top/a/c.txt", "top/b.txt"]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
        assert archive.read("top/b.txt") == b"second" and archive.testzip() is None

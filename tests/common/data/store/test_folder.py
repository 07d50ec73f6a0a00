from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from common.data.store.folder import LOCK, converting_alone, usable_folder
from common.data.store.request import Geometry
from common.data.store.store import SliceStore
from common.errors import UserError
from tests.common.data.store.made import hounsfield, image, save


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = save(tmp_path / "a.nii", hounsfield())
    with pytest.raises(UserError, match=r"file/store: cannot be made \(Not a directory\).*--store_dir"):
        SliceStore(tmp_path / "file" / "store", Geometry(5)).convert([image(path)])


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"cannot be written; choose another --store_dir"):
        usable_folder(tmp_path)


def test_the_second_waits_for_the_first_and_leftovers_go(tmp_path: Path) -> None:
    order: list[str] = []
    (tmp_path / ".123.a.npy").write_bytes(b"half")

    def second() -> None:
        with converting_alone(tmp_path):
            order.append("second")

    with converting_alone(tmp_path):
        assert not (tmp_path / ".123.a.npy").exists()
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".123.a.npy").write_bytes(b"half")  # perhaps another process is writing it
    with converting_alone(tmp_path):
        assert sorted(file.name for file in tmp_path.iterdir()) == [".123.a.npy", LOCK]

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import (
    atomic_folder,
    atomic_write,
    locked,
    read_json,
    remove_leftovers,
    replaced_folder,
    visible_files,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_and_its_folders_with_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "volume.nii.gz"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole" and names(target.parent) == ["volume.nii.gz"]


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()])
def test_an_error_keeps_the_earlier_file_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("earlier")
    with pytest.raises(type(error)), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "earlier" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written")]
)
def test_what_the_user_can_mend_is_one_line(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(UserError, match=rf"a\.txt.*{told}"), atomic_write(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_other_errors_of_the_system_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="x") as caught, atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "x")
    assert caught.value.errno == errno.EIO


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(UserError, match="choose another --output_dir"):
        write_json(tmp_path / "models" / "a.json", 1)


def test_json_round_trip_and_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None, 0.1]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None, 0.1]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"ä": [1, None, 0.1]} and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("content", "told"), [(None, "cannot be read"), ("{", "not valid JSON")])
def test_bad_json_is_one_line(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=rf"a\.json: {told}"):
        read_json(tmp_path / "a.json")


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    for name in (".4711.resume.pt", ".12.model.pt", ".hidden.pt", ".1a.pt", "resume.pt"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".1a.pt", ".hidden.pt", "resume.pt"]
    remove_leftovers(tmp_path / "not_there")


def test_hidden_files_and_caches_are_not_shown(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", ".git/x", "__pycache__/y.pyc", "d.txt~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in visible_files(tmp_path)] == ["a.txt", "c.txt"]


def test_whole_at_the_end(tmp_path):
    with atomic_folder(tmp_path / "a" / "b") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_absent_after_an_error(tmp_path, error):
    with pytest.raises(type(error)), atomic_folder(tmp_path / "b") as folder:
        (folder / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"), atomic_folder(tmp_path):
        pass


TROUBLE = [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written")]


@pytest.mark.parametrize(("number", "words"), TROUBLE)
def test_trouble_with_the_disk_is_one_line(tmp_path, number, words):
    with pytest.raises(UserError, match=f"b: {words}"), atomic_folder(tmp_path / "b"):
        raise OSError(number, "trouble")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_an_earlier_run_is_replaced_at_the_end(tmp_path):
    for text in ("first", "second"):
        with replaced_folder(tmp_path / "b", "report") as folder:
            (folder / "report").write_text(text)
            (folder / text).touch()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["report", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_after_an_error_the_earlier_run_is_still_there(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "report").write_text("first")
    with pytest.raises(ValueError, match="mine"), replaced_folder(tmp_path / "b", "report"):
        raise ValueError("mine")
    assert (tmp_path / "b" / "report").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_somebody_elses_files_are_not_replaced(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"), replaced_folder(tmp_path / "b", "report"):
        pass
    assert (tmp_path / "b" / "thesis.tex").exists()


def test_second_search_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked(folder), pytest.raises(UserError, match="still running there"), locked(folder):
        pass
    with locked(folder):
        pass


def test_trial_left_by_a_killed_search_keeps_the_lock_until_it_ends(tmp_path: Path) -> None:
    with locked(tmp_path) as descriptor:
        trial = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    with pytest.raises(UserError, match="a training that a killed one left"), locked(tmp_path):
        pass
    trial.communicate(b"\n")
    with locked(tmp_path):
        pass

import errno

import pytest

from common.data.new_folder import new_folder, remade_folder
from common.errors import UserError


def test_whole_at_the_end(tmp_path):
    with new_folder(tmp_path / "a" / "b") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_absent_after_an_error(tmp_path, error):
    with pytest.raises(type(error)), new_folder(tmp_path / "b") as folder:
        (folder / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_existing_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"), new_folder(tmp_path):
        pass


TROUBLE = [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written")]


@pytest.mark.parametrize(("number", "words"), TROUBLE)
def test_trouble_with_the_disk_is_one_line(tmp_path, number, words):
    with pytest.raises(UserError, match=f"b: {words}"), new_folder(tmp_path / "b"):
        raise OSError(number, "trouble")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_an_earlier_run_is_replaced_at_the_end(tmp_path):
    for text in ("first", "second"):
        with remade_folder(tmp_path / "b", "report") as folder:
            (folder / "report").write_text(text)
            (folder / text).touch()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["report", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_after_an_error_the_earlier_run_is_still_there(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "report").write_text("first")
    with pytest.raises(ValueError, match="mine"), remade_folder(tmp_path / "b", "report"):
        raise ValueError("mine")
    assert (tmp_path / "b" / "report").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_somebody_elses_files_are_not_replaced(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"), remade_folder(tmp_path / "b", "report"):
        pass
    assert (tmp_path / "b" / "thesis.tex").exists()

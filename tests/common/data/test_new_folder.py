import errno

import pytest

from common.data.new_folder import new_folder
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

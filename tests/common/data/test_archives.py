import io
import stat
import tarfile
import zipfile

import pytest

from common.data.archives import Member, check_members, is_archive, unpack
from common.errors import UserError


def make_zip(path, names=("a/b.txt",), mode=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "good")
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode or 0) << 16
            archive.writestr(info, "content")
    return path


def make_tar(path, mode="w", rights=0o644, **attributes):
    with tarfile.open(path, mode) as archive:
        for name, changes in (("good.txt", {}), ("a/b.txt", attributes)):
            info = tarfile.TarInfo(name)
            for key, value in changes.items():
                setattr(info, key, value)
            info.size, info.mode = 7 if info.isreg() else 0, rights
            archive.addfile(info, io.BytesIO(b"content"))
    return path


def test_zip(tmp_path):
    folder = unpack(make_zip(tmp_path / "x.zip"), tmp_path / "out")
    assert (folder / "a" / "b.txt").read_text() == "content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_tar(tmp_path, kind):
    folder = unpack(make_tar(tmp_path / f"x.tar{'.' * bool(kind)}{kind}", f"w:{kind}"), tmp_path / "out")
    assert (folder / "a" / "b.txt").read_text() == "content"


def test_tars_unpack_on_every_python_3_11(tmp_path, monkeypatch):
    """Before 3.11.4 (Debian 12 has 3.11.2) tarfile knows no ``filter``: `extractall` as it was there."""

    def extractall(self, path=".", members=None, *, numeric_owner=False):
        raise AssertionError("takes owners, modes and links from the archive")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    folder = unpack(make_tar(tmp_path / "x.tar.gz", "w:gz", rights=0o4777, uid=1234), tmp_path / "out")
    assert (folder / "a" / "b.txt").read_text() == "content"
    assert stat.S_IMODE((folder / "a" / "b.txt").stat().st_mode) & 0o7111 == 0  # content alone


def test_a_folder_of_its_own_in_a_tar(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("empty/inner")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    assert (unpack(tmp_path / "x.tar", tmp_path / "out") / "empty" / "inner").is_dir()


UNSAFE = ["../x", "a/../../x", "/etc/x", "C:\\x", "..\\x", "\\\\host\\share\\x", "C:x"]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names_are_refused_before_anything_is_written(tmp_path, name):
    for archive in (make_zip(tmp_path / "x.zip", [name]), make_tar(tmp_path / "x.tar", name=name)):
        with pytest.raises(UserError, match=rf"{archive.name}: member .*leads out of the folder"):
            unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar", "x.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tars_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "x.tar", type=kind, linkname="good.txt")
    with pytest.raises(UserError, match=r"'a/b\.txt' is a link or a device"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_zips_are_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ["link"], stat.S_IFLNK | 0o777)
    with pytest.raises(UserError, match="'link' is a link"):
        unpack(archive, tmp_path / "out")


def test_more_than_the_free_space_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"unpacks to 3.0 GB, 2.0 GB are free"):
        check_members([Member("a", 10**9, True), Member("b", 2 * 10**9, True)], tmp_path / "x.zip", 2 * 10**9)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_damaged_archives_are_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"not an archive, and never was one" * 40)
    with pytest.raises(UserError, match=f"{name}: cannot be unpacked"):
        unpack(tmp_path / name, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("keep", [0.3, 0.6])
@pytest.mark.parametrize(("suffix", "mode"), [("tar.gz", "w:gz"), ("zip", None)])
def test_cut_off_archives_leave_nothing(tmp_path, keep, suffix, mode):
    path = tmp_path / f"x.{suffix}"
    whole = (make_zip(path) if mode is None else make_tar(path, mode)).read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["x.7z", "x.rar"])
def test_formats_for_hand_work(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert is_archive(name)
    with pytest.raises(UserError, match="unpack it by hand"):
        unpack(tmp_path / name, tmp_path / "out")


def test_unpacked_already_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    assert unpack(tmp_path / "never-read.zip", tmp_path / "out") == tmp_path / "out"

"""Downloads from a local server, and archives."""

import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile

import pytest

from common.data.downloads import Member, check_members, download, is_archive, unpack
from common.errors import UserError

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT. The server's attributes say how it behaves; it keeps the Range headers it saw."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.server.trouble:
            self.send_error(self.server.trouble.pop())
            return
        start = self._start(wanted)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = self.server.breaks.pop() if self.server.breaks else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def _start(self, wanted):
        tag = self.headers.get("If-Range")
        if not wanted or not self.server.ranged or (tag and tag != self.server.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.ranges, served.breaks, served.trouble, served.ranged, served.etag = [], [], [], True, '"v1"'
    served.url = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def get(server, target, **more):
    return download(f"{server.url}/file.zip", target, wait=0.0, progress=False, **more)


def test_whole_file_with_digests(server, tmp_path):
    digests = get(server, tmp_path / "new" / "file.zip", sha256=SHA256, md5=MD5)
    assert (digests.sha256, digests.md5) == (SHA256, MD5)
    assert (tmp_path / "new" / "file.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.zip"]


def test_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    server.breaks = [700_000, 300_000]
    assert get(server, tmp_path / "file.zip").sha256 == SHA256
    assert server.ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_next_run_goes_on(server, tmp_path):
    server.breaks = [300_000]
    with pytest.raises(UserError, match=r"after 300000 of 1024000 bytes.*run again to go on"):
        get(server, tmp_path / "file.zip", attempts=1)
    assert (tmp_path / "file.zip.part").stat().st_size == 300_000
    assert get(server, tmp_path / "file.zip").sha256 == SHA256
    assert server.ranges == [None, "bytes=300000-"]


def test_server_without_ranges_starts_anew(server, tmp_path):
    server.ranged, server.breaks = False, [300_000]
    assert get(server, tmp_path / "file.zip", sha256=SHA256).sha256 == SHA256
    assert server.ranges == [None, "bytes=300000-"]


def test_changed_file_is_not_glued_together(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(b"old" * 1000)
    (tmp_path / "file.zip.part.tag").write_text('"v0"')
    assert get(server, tmp_path / "file.zip").sha256 == SHA256


def test_part_of_unknown_origin_is_fetched_anew(server, tmp_path):
    server.etag = ""
    (tmp_path / "file.zip.part").write_bytes(b"old" * 1000)
    assert get(server, tmp_path / "file.zip").sha256 == SHA256
    assert server.ranges == [None]


def test_complete_part_is_only_checked(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    assert get(server, tmp_path / "file.zip", sha256=SHA256).sha256 == SHA256
    assert server.ranges == ["bytes=1024000-"]


def test_part_that_is_too_long_is_replaced(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "file.zip", sha256=SHA256).sha256 == SHA256


@pytest.mark.parametrize("digest", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_digest_removes_the_part(server, tmp_path, digest):
    with pytest.raises(UserError, match=r"file.zip: .* expected 0+; the download was removed"):
        get(server, tmp_path / "file.zip", **digest)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_checked_and_kept(server, tmp_path):
    (tmp_path / "file.zip").write_bytes(CONTENT)
    assert get(server, tmp_path / "file.zip", sha256=SHA256).md5 == MD5
    (tmp_path / "file.zip").write_bytes(b"mine")
    with pytest.raises(UserError, match="delete the file and run again"):
        get(server, tmp_path / "file.zip", sha256=SHA256)
    assert (tmp_path / "file.zip").read_bytes() == b"mine" and server.ranges == []


def test_passing_trouble_is_tried_again_and_a_refusal_is_not(server, tmp_path):
    server.trouble = [503, 429]
    assert get(server, tmp_path / "file.zip").sha256 == SHA256
    server.ranges.clear()
    with pytest.raises(UserError, match="answered 404"):
        download(f"{server.url}/missing", tmp_path / "other", wait=0.0, progress=False)
    assert len(server.ranges) == 1


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/x: .*2 attempts"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, wait=0.0, progress=False)


def test_local_files_are_no_downloads(tmp_path):
    with pytest.raises(UserError, match="only http"):
        download("file:///etc/passwd", tmp_path / "x")


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


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_archives(tmp_path, kind):
    archive = tmp_path / f"x.{kind}"
    make_zip(archive) if kind == "zip" else make_tar(archive, f"w:{kind[4:]}")
    folder = unpack(archive, tmp_path / "out")
    assert (folder / "a" / "b.txt").read_text() == "content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", archive.name]


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

from __future__ import annotations

import copy
import hashlib
import http.server
import io
import json
import re
import stat
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.data import public_datasets as module
from common.data.layouts import LAYOUTS
from common.data.public_datasets import (
    Digests,
    LocalDataset,
    Member,
    arrange,
    check_members,
    download,
    find_dataset,
    format_registry,
    instructions,
    is_archive,
    load_registry,
    matches,
    obtain,
    source_samples,
    unpack,
    validate,
)
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.paths import repository_root


@pytest.fixture(scope="module")
def content():
    return json.loads((repository_root() / "datasets.json").read_text(encoding="utf-8"))


def test_shipped_registry_fits_its_schema():
    registry = load_registry()
    assert len(registry) >= 20
    assert {bundle for entry in registry.values() for bundle in entry.bundles} == {
        "pix2pix_covid", "patchgan_cardiac", "dcgan_covid", "lung_two_stage"
    }  # fmt: skip


COVID = ["medseg_100", "covid19_ct_seg", "mosmed", "covid_semiseg", "covid_lesion_collection", "covid_ct"]
OTHERS = ["mm_whs", "chd68", "image_chd", "acdc", "luna16", "lidc_idri"]


@pytest.mark.parametrize("name", [*COVID, *OTHERS])
def test_the_papers_sets_are_listed(name):
    assert load_registry()[name].landing_page.startswith("http")


def test_mask_conventions():
    registry = load_registry()
    assert registry["medseg_100"].mask.foreground == (1, 2, 3)
    assert registry["medseg_100"].mask.values[3] == "pleural effusion"
    assert registry["cncb_lesions"].mask.foreground == (2, 3)  # 1 is the lung, not a lesion
    assert registry["mm_whs"].mask.values[420] == "left atrium"
    assert registry["covid_semiseg"].mask.threshold == 128
    assert registry["covid_ct"].mask.kind == "none"


def test_every_rule_of_every_entry_is_usable():
    for entry in load_registry().values():
        assert entry.adapter == "pairs" or entry.adapter in LAYOUTS
        assert all(value in entry.mask.values for value in entry.mask.foreground or ())
        if entry.pairs:
            assert re.compile(entry.pairs.key).groups >= 1
            assert entry.pairs.orientation in ORIENTATIONS
            assert (entry.pairs.masks is None) == (entry.mask.kind == "none")
        for pattern, identity in entry.shared_patients:
            assert identity.format(*["7"] * re.compile(pattern).groups)


def test_sign_up_sets_list_no_files_and_overlaps_go_both_ways():
    registry = load_registry()
    for name, entry in registry.items():
        assert not (entry.sign_up and entry.files)
        assert all(name in registry[other].overlaps for other in entry.overlaps), name


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("medseg_100", "licence"), 3, "licence"),
        (("medseg_100", "landing_page"), "ftp://x", "landing_page"),
        (("medseg_100", "bundles"), ["pix2pix"], "bundles"),
        (("covid19_ct_seg", "files", 0, "sha256"), "abc", "sha256"),
        (("covid19_ct_seg", "files", 0, "name"), "../x.zip", "name"),
        (("covid19_ct_seg", "files", 0, "unpack_to"), "../x", "unpack_to"),
        (("mosmed", "files"), [{"url": "https://x.org/a", "name": "a", "sha256": None}], "files"),
        (("mosmed", "overlaps"), ["nowhere"], "nowhere"),
        (("mosmed", "colour"), "red", "colour"),
    ],
)
def test_schema_refuses(content, path, value, named):
    broken = copy.deepcopy(content)
    place = broken["datasets"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UserError, match=named):
        validate(broken, "datasets.json")


def test_missing_field_is_named(content):
    broken = copy.deepcopy(content)
    del broken["datasets"]["acdc"]["mask"]
    with pytest.raises(UserError, match=r"acdc.*'mask' is a required property"):
        validate(broken, "datasets.json")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="nearest known name is 'mosmed'"):
        find_dataset("MosMedData", load_registry())


REGISTRY = load_registry()


def picture(path, value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:5, 2:5] = 200 if value is None else value
    Image.fromarray(pixels).save(path)


def volume(path, array):
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def test_pairs_of_pictures_with_patients_that_hold_across_sets(tmp_path):
    radiopaedia = "Jun_radiopaedia_10_85902_1_case13_14"
    for name in ("Jun_coronacases_case10_7", radiopaedia, "Morozov_study_0255_3", "bjorke_1"):
        picture(tmp_path / "frames" / f"{name}.png")
        picture(tmp_path / "masks" / f"{name}.png")
    samples = source_samples(LocalDataset(REGISTRY["covid_lesion_collection"], tmp_path))
    assert [sample.patient for sample in samples] == [
        "coronacases-10", "radiopaedia-10", "mosmed-255", "covid_lesion_collection-bjorke_1"
    ]  # fmt: skip
    assert samples[0].mask == tmp_path / "masks" / "Jun_coronacases_case10_7.png"


def test_one_patient_has_one_id_in_three_sets(tmp_path):
    picture(tmp_path / "a" / "pseudo" / "images" / "Data-1_coronacases_org_001_12.jpg")
    picture(tmp_path / "a" / "pseudo" / "masks" / "Data-1_coronacases_org_001_12.png")
    picture(tmp_path / "b" / "frames" / "Jun_coronacases_case1_12.png")
    picture(tmp_path / "b" / "masks" / "Jun_coronacases_case1_12.png")
    volume(tmp_path / "c" / "images" / "x" / "coronacases_001.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "c" / "masks" / "x" / "coronacases_001.nii.gz", np.ones((8, 8, 8)))
    names = {"a": "covid_semiseg", "b": "covid_lesion_collection", "c": "covid19_ct_seg"}
    sources = [LocalDataset(REGISTRY[name], tmp_path / part) for part, name in names.items()]
    samples = [sample for source in sources for sample in source_samples(source)]
    assert {sample.patient for sample in samples} == {"coronacases-1"}
    assert len(samples) == 1 + 1 + 8


def test_stack_of_slices_of_many_patients(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    samples = source_samples(LocalDataset(REGISTRY["medseg_100"], tmp_path))
    assert [sample.index for sample in samples] == [0, 1, 2]
    assert len({sample.patient for sample in samples}) == 3
    assert samples[0].mask_values == (1, 2, 3)


def test_own_foreground_leaves_other_values_as_background(tmp_path):
    volume(tmp_path / "tr_im.nii.gz", np.arange(192).reshape(8, 8, 3) - 1000)
    volume(tmp_path / "tr_mask.nii.gz", np.ones((8, 8, 3)))
    sample = source_samples(LocalDataset(REGISTRY["medseg_100"], tmp_path, foreground=(1, 2)))[0]
    assert sample.mask_values == (1, 2) and 3 in sample.mask_background


def test_images_without_mask_are_left_out_and_counted(tmp_path, caplog):
    studies = tmp_path / "studies" / "CT-1"
    for number in (254, 255):
        volume(studies / f"study_0{number}.nii.gz", np.arange(512).reshape(8, 8, 8) - 1000)
    volume(tmp_path / "masks" / "study_0255_mask.nii.gz", np.ones((8, 8, 8)))
    samples = source_samples(LocalDataset(REGISTRY["mosmed"], tmp_path))
    assert {sample.patient for sample in samples} == {"mosmed-255"}
    assert "1 of 2 images have no mask" in caplog.text


def test_sets_without_masks(tmp_path):
    picture(tmp_path / "covid" / "CT_COVID" / "a.png")
    picture(tmp_path / "noncovid" / "CT_NonCOVID" / "b.jpg")
    picture(tmp_path / "covid" / "__MACOSX" / "._a.png")
    samples = source_samples(LocalDataset(REGISTRY["covid_ct"], tmp_path))
    assert [sample.mask for sample in samples] == [None, None]


def test_repeated_case_is_refused(tmp_path):
    for part in ("one", "two"):
        for kind in ("image", "label"):
            volume(tmp_path / part / f"ct_train_1001_{kind}.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(UserError, match=r"two/ct_train_1001_label.nii.gz: is the same case as .*one"):
        source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))


def test_a_folder_of_another_set_does_not_fit(tmp_path):
    assert not matches(REGISTRY["mm_whs"], tmp_path / "missing")
    picture(tmp_path / "frames" / "a.png")
    assert not matches(REGISTRY["mm_whs"], tmp_path)
    with pytest.raises(UserError, match="does not look like mm_whs; expected ct_train/"):
        source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))


def test_plain_pairs_are_taken_for_any_set(tmp_path):
    picture(tmp_path / "images" / "p1_1.png")
    picture(tmp_path / "masks" / "p1_1.png", value=205)
    samples = source_samples(LocalDataset(REGISTRY["mm_whs"], tmp_path))
    assert [(sample.patient, sample.mask_values) for sample in samples] == [
        ("mm_whs-p1", (205, 420, 500, 550, 600, 820, 850))
    ]


REGISTRY_OBTAIN = load_registry()


def training_zip(path):
    """An archive like COVID-SemiSeg's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.parent / "picture.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(picture)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("Doctor-label", "Pseudo-label"):
            for kind, suffix in (("Imgs", "jpg"), ("GT", "png"), ("Edge", "png")):
                name = f"Data-1_coronacases_org_001_1.{suffix}"
                archive.write(picture, f"LungInfection-Train/{part}/{kind}/{name}")
    picture.unlink()


@pytest.fixture
def fetched(monkeypatch):
    """Replaces the network: each download writes COVID-SemiSeg's archive."""
    urls = []

    def fake(url, target, sha256=None, md5=None, *, progress=True):
        urls.append(url)
        training_zip(target)
        return Digests("ab" * 32, "cd" * 16)

    monkeypatch.setattr(module, "download", fake)
    return urls


def test_download_unpack_arrange_and_find(fetched, tmp_path, capsys):
    dataset = REGISTRY_OBTAIN["covid_semiseg"]
    folder = obtain(dataset, tmp_path, progress=False)
    assert folder == tmp_path / "covid_semiseg"
    for place in ("doctor/images", "doctor/masks", "pseudo/images", "pseudo/masks"):
        assert len(list((folder / place).iterdir())) == 1
    assert f"LungInfection-Train.zip: sha256 {'ab' * 32}" in capsys.readouterr().out
    assert fetched == ["http://dpfan.net/wp-content/uploads/LungInfection-Train.zip"]
    obtain(dataset, tmp_path, progress=False)
    assert len(fetched) == 1  # found, not fetched again


def test_download_that_holds_something_else(fetched, tmp_path):
    with pytest.raises(UserError, match="does not hold what was expected"):
        obtain(replace(REGISTRY_OBTAIN["cncb_lesions"]), tmp_path, progress=False)


def test_set_for_sign_up_is_explained(tmp_path, capsys):
    with pytest.raises(UserError, match="mosmed: no such folder; download the set by hand"):
        obtain(REGISTRY_OBTAIN["mosmed"], tmp_path)
    told = capsys.readouterr().out
    assert "https://mosmed.ai/datasets/covid19_1110/" in told and "sign-up" in told
    assert "CC BY-NC-ND 3.0" in told and "study_0255" in told and f"{tmp_path / 'mosmed'}\n" in told


def test_wrong_folder_is_named(tmp_path):
    (tmp_path / "mosmed").mkdir()
    with pytest.raises(UserError, match="mosmed: does not look like mosmed"):
        obtain(REGISTRY_OBTAIN["mosmed"], tmp_path)


def test_root_itself_is_the_set_only_where_allowed(tmp_path):
    (tmp_path / "doctor").mkdir()
    dataset = replace(REGISTRY_OBTAIN["covid_semiseg"], files=())
    assert obtain(dataset, tmp_path, root_is_set=True) == tmp_path
    with pytest.raises(UserError, match="no such folder"):
        obtain(dataset, tmp_path)


def test_arrange_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"0 folders match unpacked/\*\*/Doctor-label/Imgs"):
        arrange(REGISTRY_OBTAIN["covid_semiseg"], tmp_path)


def test_table_lists_every_set_once():
    lines = format_registry(REGISTRY_OBTAIN).splitlines()
    assert [line.split()[0] for line in lines[1:]] == sorted(REGISTRY_OBTAIN)
    assert "not confirmed" in instructions(REGISTRY_OBTAIN["covid_ct"], "data")


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

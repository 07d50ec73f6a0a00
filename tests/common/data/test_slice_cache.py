from __future__ import annotations

import errno
import fcntl
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from common.data import slice_cache as store_module
from common.data.labels import LabelSet
from common.data.samples import Sample
from common.data.slice_cache import (
    FORMAT,
    LOCK,
    CachedPair,
    CachedVolume,
    Job,
    SliceCache,
    SliceReader,
    cached_pair,
    content_hash,
    exclusive,
    in_parallel,
    selected_slices,
    stamps,
)
from common.data.slice_geometry import (
    AXES,
    Geometry,
    Intensity,
    Request,
)
from common.errors import UserError
from tests.common.data.made_volumes import (
    WINDOW,
    heart_label,
    hounsfield,
    image,
    label,
    labels,
    save,
    save_volume,
    write_dicom,
    write_meta_image,
)


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    """Two patients, image and label each."""
    (tmp_path / "set").mkdir()
    made = []
    for patient in range(2):
        made.append(image(save(tmp_path / "set" / f"ct{patient}.nii.gz", hounsfield(patient))))
        made.append(label(save(tmp_path / "set" / f"heart{patient}.nii.gz", labels())))
    return made


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are converted from now on."""
    names: list[str] = []
    real = store_module.read_source

    def noted(request: Request, geometry: Geometry):  # type: ignore[no-untyped-def]
        names.append(request.path.name)
        return real(request, geometry)

    monkeypatch.setattr(store_module, "read_source", noted)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    """The store's arrays and records."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".npy", ".json")}


def test_volumes_come_in_the_order_of_the_requests(tmp_path: Path, requests: list[Request]) -> None:
    volumes = SliceCache(tmp_path / "store", Geometry(5)).convert(requests)
    assert [(volume.source, volume.kind) for volume in volumes] == [(r.path, r.kind) for r in requests]
    assert [volume.values for volume in volumes] == [(), (0, 420, 600)] * 2
    assert all(volume.array.parent == tmp_path / "store" for volume in volumes)


def test_a_second_run_converts_and_writes_nothing(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SliceCache(tmp_path / "store", Geometry(5)).convert(requests)
    converted.clear()
    monkeypatch.setattr(store_module, "content_hash", None)  # nor does it read the sources
    monkeypatch.setattr(store_module, "_make_folder", None)  # a read-only store does
    second = SliceCache(tmp_path / "store", Geometry(5)).convert(requests)
    assert second == first and not converted
    assert all(np.array_equal(a.counts, b.counts) for a, b in zip(first, second, strict=True))


def test_relative_paths_and_repeated_ones_are_one_file(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SliceCache(tmp_path / "store", Geometry(5))
    first = store.convert(requests[:1])
    monkeypatch.chdir(tmp_path / "set")
    again = [image(Path("../set/ct0.nii.gz")), requests[0], requests[0]]
    assert store.convert(again) == first * 3 and converted == ["ct0.nii.gz"]


BOTH, ALL = ["ct0.nii.gz", "ct1.nii.gz"], ["ct0.nii.gz", "ct1.nii.gz", "heart0.nii.gz", "heart1.nii.gz"]


@pytest.mark.parametrize(
    ("geometry", "window", "rebuilt"),
    [
        (Geometry(5), Intensity("window", 0, 100), BOTH),
        (Geometry(5, interpolation="linear"), WINDOW, BOTH),
        (Geometry(6), WINDOW, ALL),
        (Geometry(5, "coronal"), WINDOW, ALL),
        (Geometry(5, spacing=1.0), WINDOW, ALL),
    ],
)
def test_other_settings_rebuild_what_depends_on_them(
    tmp_path: Path,
    requests: list[Request],
    converted: list[str],
    geometry: Geometry,
    window: Intensity,
    rebuilt: list[str],
) -> None:
    first = SliceCache(tmp_path / "store", Geometry(5)).convert(requests)
    converted.clear()
    other = [image(r.path, window) if r.kind == "image" else r for r in requests]
    second = SliceCache(tmp_path / "store", geometry).convert(other)
    assert sorted(converted) == rebuilt and second[1].geometry == geometry
    assert (second[0].lower, second[0].upper) == (window.lower, window.upper)
    converted.clear()
    assert SliceCache(tmp_path / "store", Geometry(5)).convert(requests) == first and not converted


def test_changed_content_rebuilds_that_file_alone(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    store = SliceCache(tmp_path / "store", Geometry(5))
    first = store.convert(requests)
    converted.clear()
    save(requests[2].path, hounsfield(7))
    second = store.convert(requests)
    assert converted == ["ct1.nii.gz"] and second[0] == first[0]
    clean = SliceCache(tmp_path / "clean", Geometry(5)).convert(requests)
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")  # the old array is gone
    assert np.array_equal(SliceReader().image(second[2], 3), SliceReader().image(clean[2], 3))


def test_changed_times_alone_rebuild_nothing(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SliceCache(tmp_path / "store", Geometry(5))
    first = store.convert(requests)
    converted.clear()
    os.utime(requests[0].path, (1, 1))
    assert store.convert(requests) == first and not converted
    monkeypatch.setattr(store_module, "content_hash", None)
    assert store.convert(requests) == first  # the new time is on record


@pytest.mark.parametrize("kind", ["zmhd", "dicom"])
def test_every_part_of_a_volume_is_watched(tmp_path: Path, converted: list[str], kind: str) -> None:
    path = tmp_path / ("series" if kind == "dicom" else "a.mhd")
    store = SliceCache(tmp_path / "store", Geometry(5))
    if kind == "dicom":
        write_dicom(path, hounsfield())
        part = path / "003.dcm"
    else:
        write_meta_image(path, hounsfield(), compression=True)
        part = tmp_path / "a.zraw"
    store.convert([image(path)])
    os.utime(part, (1, 1))
    store.convert([image(path)])
    assert len(converted) == 1
    if kind == "dicom":
        (path / "007.dcm").unlink()
    else:
        write_meta_image(path, hounsfield(3), compression=True)
    (volume,) = store.convert([image(path)])
    assert len(converted) == 2 and volume.depth == (7 if kind == "dicom" else 8)


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "array without record": lambda array, record: record.unlink(),
    "record without array": lambda array, record: array.unlink(),
    "array cut short": lambda array, record: os.truncate(array, 200),
    "record cut short": lambda array, record: os.truncate(record, 200),
    "record of something else": lambda array, record: record.write_text("[1, 2]") and None,
    "record of an earlier format": lambda array, record: (
        record.write_text(record.read_text().replace(f'"format": {FORMAT}', '"format": 0')) and None
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_converted_again(
    tmp_path: Path, requests: list[Request], converted: list[str], damage: str
) -> None:
    store = SliceCache(tmp_path / "store", Geometry(5))
    first = store.convert(requests)
    whole = contents(tmp_path / "store")
    converted.clear()
    array = first[1].array
    DAMAGES[damage](array, next((tmp_path / "store").glob("heart0-*.json")))
    assert store.convert(requests) == first
    assert converted == ["heart0.nii.gz"] and contents(tmp_path / "store") == whole


def test_bad_files_are_named_and_counted_and_the_rest_stays(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    for name in ("ct1", "heart1"):
        path = tmp_path / "set" / f"{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:-30])
    store = SliceCache(tmp_path / "store", Geometry(5), workers=1)
    with pytest.raises(UserError) as caught:
        store.convert(requests)
    message = str(caught.value)
    assert "set/ct1.nii.gz: cannot be read" in message and message.endswith("(1 more bad file)")
    assert "\n" not in message
    assert sorted(file.name[:6] for file in (tmp_path / "store").glob("*.npy")) == ["ct0-im", "heart0"]
    converted.clear()
    store.convert(requests[:2])
    assert not converted


def test_a_missing_file_is_one_line(tmp_path: Path, requests: list[Request]) -> None:
    store = SliceCache(tmp_path / "store", Geometry(5))
    assert store.convert([]) == [] and not (tmp_path / "store").exists()
    store.convert(requests)
    requests[0].path.unlink()
    with pytest.raises(UserError, match=r"ct0\.nii\.gz: no such file"):
        store.convert(requests)


def job(path: str = "/data/a.nii.gz", **changes: object) -> Job:
    request = Request(Path(path), "image", Intensity())
    return Job(replace(request, **changes), Geometry(8))  # type: ignore[arg-type]


def test_names_tell_the_file_and_differ_with_the_settings() -> None:
    jobs = [
        job(),
        job("/other/a.nii.gz"),
        job(intensity=Intensity(upper=500)),
        job(intensity=Intensity("percentile", 1, 99)),
        job(orientation="rot90"),
        job(kind="label"),
        *(Job(job().request, geometry) for geometry in (Geometry(9), Geometry(8, "sagittal"))),
        *(Job(job().request, Geometry(8, spacing=spacing)) for spacing in (1.0, 1.5)),
        *(Job(job().request, Geometry(8, fit=fit)) for fit in ("pad", "crop")),
    ]
    assert len({one.name for one in jobs}) == len(jobs)
    assert all(one.name.startswith(("a-image-", "a-label-")) for one in jobs)
    bare = Job(Request(Path("/data/a.nii.gz"), "label"), Geometry(8, interpolation="linear"))
    assert job(kind="label").name == bare.name  # labels mind neither intensity nor interpolation
    mm = [Job(job().request, Geometry(8, spacing=1.0, fit=fit)).name for fit in ("pad", "stretch")]
    assert mm[0] == mm[1]  # where a spacing is given it decides


def test_names_are_safe_and_of_bounded_length() -> None:
    name = job("/data/" + "ä b/"[:3] * 40 + ".nii.gz").name
    assert len(name) < 100 and name.isascii() and " " not in name


def test_stamps_of_what_is_not_there_are_empty(tmp_path: Path) -> None:
    assert stamps(tmp_path / "missing.nii") == []
    assert stamps(tmp_path / "missing.mhd") == []


def test_the_hash_is_of_content_and_parts(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"one")
    first = content_hash(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(b"two")
    assert content_hash(tmp_path / "a.nii") != first
    series = tmp_path / "series"
    series.mkdir()
    for name, content in (("1.dcm", b"ab"), ("2.dcm", b"c")):
        (series / name).write_bytes(content)
    before = content_hash(series)
    (series / "1.dcm").write_bytes(b"a")
    (series / "2.dcm").write_bytes(b"bc")
    assert content_hash(series) != before


def test_folders_that_cannot_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    path = save(tmp_path / "a.nii", hounsfield())
    with pytest.raises(UserError, match=r"file/store: cannot be made \(Not a directory\).*--store_dir"):
        SliceCache(tmp_path / "file" / "store", Geometry(5)).convert([image(path)])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"cannot be written; choose another --store_dir"):
        SliceCache(tmp_path, Geometry(5)).convert([image(path)])


def test_the_second_waits_for_the_first_and_leftovers_go(tmp_path: Path) -> None:
    order: list[str] = []
    (tmp_path / ".123.a.npy").write_bytes(b"half")

    def second() -> None:
        with exclusive(tmp_path):
            order.append("second")

    with exclusive(tmp_path):
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
    with exclusive(tmp_path):
        assert sorted(file.name for file in tmp_path.iterdir()) == [".123.a.npy", LOCK]


def test_results_keep_the_order_and_threads_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=5)

    def met(number: int) -> int:
        meeting.wait()
        return number * number

    assert in_parallel(range(6), met, 3, "working") == [0, 1, 4, 9, 16, 25]
    assert in_parallel([], met, 3, "working") == []


def refuse(number: int) -> int:
    if number % 2:
        raise UserError(f"file{number}: bad")
    return number


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([0, 1, 2], "file1: bad"),
        ([0, 1, 2, 3, 5], r"file1: bad \(2 more bad files\)"),
        ([1, 3, 5, 7, 9, 11, 13], r"file1: bad \(at least 4 more bad files\)"),
    ],
)
def test_bad_files_are_counted_up_to_five(items: list[int], says: str) -> None:
    with pytest.raises(UserError, match=f"^{says}$"):
        in_parallel(items, refuse, 1, "working")


def test_the_file_named_first_is_the_first_whichever_is_ready_first() -> None:
    def refuse_slowly(number: int) -> None:
        sleep(0.2 if number == 0 else 0)
        raise UserError(f"{number} is bad")

    with pytest.raises(UserError, match=r"^0 is bad"):
        in_parallel(range(12), refuse_slowly, 4, "working")


def test_other_errors_stop_the_rest_and_come_through() -> None:
    started: list[int] = []

    def fail(number: int) -> None:
        started.append(number)
        if number == 0:
            raise KeyError(number)
        sleep(0.05)  # on a busy machine the waiting thread needs time to hear of the first

    with pytest.raises(KeyError):
        in_parallel(range(200), fail, 1, "working")
    assert len(started) < 200


def test_headers_tell_the_size_of_the_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", hounsfield())
    sizes = [Job(image(path), Geometry(16, axis)).array_bytes for axis in ("axial", "coronal", "sagittal")]
    assert sizes == [8 * 512, 10 * 512, 12 * 512]
    path = save(tmp_path / "heart.nii", labels())
    assert Job(label(path), Geometry(16)).array_bytes == 8 * 256  # labels take half
    assert Job(Request(tmp_path / "a.png", "label"), Geometry(16)).array_bytes == 256
    path.write_bytes(b"broken")
    assert Job(label(path), Geometry(16)).array_bytes == 0
    assert Job(label(tmp_path / "missing.nii"), Geometry(16)).array_bytes == 0


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.nii.gz", hounsfield())
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    store = tmp_path / "store"
    needed = f"{store}: converting 1 file needs 33 MB but 20 MB are free"  # 8 x 1024 x 1024 x 2, and 16 kept
    with pytest.raises(UserError, match=needed):
        SliceCache(store, Geometry(1024)).convert([image(path)])
    assert not list(store.glob("*.npy"))
    SliceCache(store, Geometry(8)).convert([image(path)])


@pytest.fixture
def stored(tmp_path: Path) -> list[CachedVolume]:
    requests = [image(save(tmp_path / f"ct{seed}.nii", hounsfield(seed))) for seed in range(3)]
    requests.append(label(save(tmp_path / "heart.nii", labels())))
    return SliceCache(tmp_path / "store", Geometry(7), workers=1).convert(requests)


def test_slices_are_those_of_the_array(stored: list[CachedVolume]) -> None:
    reader = SliceReader()
    for volume in stored[:3]:
        array = np.load(volume.array, mmap_mode="r")
        assert array.shape == (8, 7, 7) and array.flags.c_contiguous
        for index in (5, 0, 7):
            slice_ = reader.image(volume, index)
            assert slice_.dtype == np.float32 and slice_ == pytest.approx(array[index] / 65535, abs=1e-7)
    codes = np.load(stored[3].array)
    assert codes.dtype == np.uint8 and np.array_equal(reader.label(stored[3], 3), codes[3])


def test_black_and_white_are_exactly_0_and_1(tmp_path: Path) -> None:
    array = np.array([[-1020, 5000]], np.int16).reshape(2, 1, 1)
    (volume,) = SliceCache(tmp_path, Geometry(2)).convert([image(save(tmp_path / "a.nii", array))])
    assert SliceReader().image(volume, 0).tolist() == [[0, 1], [0, 1]]


def test_slices_are_read_into_what_is_given(stored: list[CachedVolume]) -> None:
    reader, batch = SliceReader(), np.zeros((2, 1, 7, 7), np.float32)
    result = reader.image(stored[1], 4, out=batch[1, 0])
    assert result.base is not None and batch[1, 0].any() and not batch[0].any()
    codes = np.zeros((2, 7, 7), np.uint8)
    reader.label(stored[3], 3, out=codes[1])
    assert codes[1].max() == 2 and not codes[0].any()
    first = reader.image(stored[0], 0)
    before = first.copy()
    reader.image(stored[0], 7)  # the next read does not touch a result
    assert np.array_equal(first, before)


@pytest.mark.parametrize("index", [-1, 8])
def test_slices_beyond_the_ends_are_errors(stored: list[CachedVolume], index: int) -> None:
    with pytest.raises(IndexError, match=f"slice {index} of 8"):
        SliceReader().image(stored[0], index)


def test_few_files_stay_open(stored: list[CachedVolume], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_OPEN", 2)
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags: (opened.append(Path(path).name[:3]), real(path, flags))[1]
    )
    reader = SliceReader()
    for volume in (0, 0, 1, 0, 2, 0, 1):
        reader.image(stored[volume], 0)
    assert opened == ["ct0", "ct1", "ct2", "ct1"]  # the least recently used is closed first
    assert len(reader._open) == 2


def test_readers_travel_to_workers_and_work_after_a_fork(stored: list[CachedVolume]) -> None:
    reader = SliceReader()
    expected = reader.image(stored[0], 2)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).image(stored[0], 2), expected)
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(reader.image(stored[0], 2), expected) else 1)
    assert np.array_equal(reader.image(stored[0], 2), expected)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_and_short_arrays_are_named(stored: list[CachedVolume]) -> None:
    os.truncate(stored[0].array, 500)
    with pytest.raises(UserError, match=r"ct0-image-.*\.npy: cut short"):
        SliceReader().image(stored[0], 7)
    stored[1].array.unlink()
    with pytest.raises(UserError, match=r"ct1-image-.*\.npy: cannot be read"):
        SliceReader().image(stored[1], 0)


def converted_volume(tmp_path: Path, geometry: Geometry) -> tuple[CachedVolume, CachedVolume]:
    requests = [
        image(save(tmp_path / "ct.nii", hounsfield())),
        label(save(tmp_path / "heart.nii", labels())),
    ]
    stored = SliceCache(tmp_path / "store", geometry, workers=1).convert(requests)
    return stored[0], stored[1]


def images(volume: CachedVolume) -> np.ndarray:
    return np.stack([SliceReader().image(volume, index) for index in range(volume.depth)])


def codes(volume: CachedVolume) -> np.ndarray:
    return np.stack([SliceReader().label(volume, index) for index in range(volume.depth)])


@pytest.mark.parametrize("spacing", [None, 0.25])
@pytest.mark.parametrize("axis", AXES)
def test_enlarged_slices_give_the_source_back(tmp_path: Path, axis: str, spacing: float | None) -> None:
    """64 pixels are more than any side has, at 0.25 mm too (2 mm x 8 slices is the longest, 16 mm)."""
    ct, heart = converted_volume(tmp_path, Geometry(64, axis, spacing))
    assert ct.shape == (10, 12, 8) and ct.spacing == (0.75, 0.5, 2.0)
    assert ct.depth == {"axial": 8, "coronal": 10, "sagittal": 12}[axis]
    back = heart.to_source(codes(heart), nearest=True)
    assert back.dtype == np.uint8
    assert np.array_equal(np.take(heart.values, back), labels().transpose(1, 0, 2))
    hu = ct.to_source(images(ct)) * (ct.upper - ct.lower) + ct.lower
    inner = (slice(1, -1),) * 3  # beyond the outermost voxels' centres there is nothing to interpolate
    true = hounsfield().transpose(1, 0, 2)
    # Noise is smoothed on the way (there linearly, back by a triangle); the ramps' slopes are kept.
    assert np.abs(hu - true)[inner].max() < 45 and abs((hu - true)[inner].mean()) < 2
    for axis_of_array, slope in enumerate((-15, 40, 70)):
        assert np.diff(hu, axis=axis_of_array)[inner].mean() == pytest.approx(slope, abs=2)


@pytest.mark.parametrize("axis", AXES)
def test_the_same_size_is_exact_to_the_last_bit_of_sixteen(tmp_path: Path, axis: str) -> None:
    array = hounsfield(extent=(8, 8, 8))
    path = save(tmp_path / "cube.nii", array)
    (volume,) = SliceCache(tmp_path / "store", Geometry(8, axis), workers=1).convert([image(path)])
    hu = volume.to_source(images(volume)) * 2000 - 1000
    assert np.abs(hu - array.transpose(1, 0, 2)).max() < 0.02  # 2000 HU / 65535 / 2


@pytest.mark.parametrize(
    ("axis", "first", "last"),
    [
        # 10 rows of 0.75 mm are 15 pixels of 0.5 mm; 6..9 are kept, where the centres of rows 4..6 lie.
        ("axial", (4, 4, 0), (6, 7, 7)),
        # 8 slices of 2 mm are 32 pixels; 14..17, counted from the head, hold the centre of slice 4 alone.
        ("coronal", (0, 4, 4), (9, 7, 4)),
        ("sagittal", (4, 0, 4), (6, 11, 4)),
    ],
)
def test_what_was_cropped_away_comes_back_as_the_fill(
    tmp_path: Path, axis: str, first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    ct, heart = converted_volume(tmp_path, Geometry(4, axis, spacing=0.5))
    kept = heart.to_source(np.ones((heart.depth, 4, 4), np.int16), nearest=True, fill=-7)
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    assert kept.shape == (10, 12, 8) and kept.dtype == np.int16
    assert (kept[box] == 1).all() and (kept == 1).sum() == kept[box].size and (kept == -7).any()
    assert ct.to_source(np.ones((ct.depth, 4, 4)), fill=0.5).min() == 0.5


def test_a_stack_of_another_shape_is_an_error(tmp_path: Path) -> None:
    ct, _ = converted_volume(tmp_path, Geometry(4))
    with pytest.raises(ValueError, match=r"\(7, 4, 4\) where \(8, 4, 4\)"):
        ct.to_source(np.zeros((7, 4, 4)))


def test_what_is_known_of_a_volume_is_small_and_travels(tmp_path: Path) -> None:
    ct, heart = converted_volume(tmp_path, Geometry(4))
    for volume in (ct, heart):
        packed = pickle.dumps(volume)
        assert len(packed) < 3000
        copy = pickle.loads(packed)
        assert copy == volume and np.array_equal(copy.counts, volume.counts)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., CachedPair]:
    """Converts an image and a label file and joins them."""

    def joined(image: Path, label: Path, label_set: LabelSet | None = None) -> CachedPair:
        store = SliceCache(tmp_path / "store", Geometry(16))
        requests = [Request(image, "image", Intensity()), Request(label, "label")]
        return cached_pair(Sample(image, label, "p"), *store.convert(requests), label_set or LabelSet())

    return joined


@pytest.fixture
def first(hearts: Path) -> tuple[Path, Path]:
    """Image and label of patient p0, counts of whose slices the tests know."""
    return hearts / "images" / "p0.nii.gz", hearts / "labels" / "p0.nii.gz"


def test_classes_of_codes(first: tuple[Path, Path], pair: Callable[..., CachedPair]) -> None:
    table = pair(*first, LabelSet("PA,LV")).table
    assert table is not None and table.tolist() == [0, 1, 0, 0, 0, 0, 0, 2]


def test_filters(first: tuple[Path, Path], pair: Callable[..., CachedPair]) -> None:
    pairs = [pair(*first), pair(*first)]
    # 12 pixels in slice 0 (LV and RV, 2 x 3 each), 42 in slices 1..3, none in slice 4.
    assert selected_slices(pairs, 0, 1, ()).tolist() == [[n, z] for n in range(2) for z in range(5)]
    assert selected_slices(pairs, 1, 1, ())[:, 1].tolist() == [0, 1, 2, 3] * 2
    assert selected_slices(pairs, 12, 1, ())[:, 1].tolist() == [0, 1, 2, 3] * 2
    assert selected_slices(pairs, 13, 1, ())[:, 1].tolist() == [1, 2, 3] * 2
    assert selected_slices(pairs, 1, 2, ())[:, 1].tolist() == [0, 2] * 2
    only = [pair(*first, LabelSet("PA"))]
    assert selected_slices(only, 1, 1, ())[:, 1].tolist() == [1, 2, 3]


def test_nothing_left_says_why(first: tuple[Path, Path], pair: Callable[..., CachedPair]) -> None:
    with pytest.raises(
        UserError, match=r"no slices left of 5 \(p\): 2 after every=4, none .* min_pixels=13 .* LV, RV"
    ):
        selected_slices([pair(*first)], 13, 4, ("LV", "RV"))
    with pytest.raises(UserError, match="at least 1"):
        selected_slices([pair(*first)], 1, 0, ())


def test_other_shape_or_place(first: tuple[Path, Path], pair: Callable[..., CachedPair]) -> None:
    image, label = first
    array = heart_label(0)
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    save_volume(label, array[:, :-1])
    with pytest.raises(
        UserError, match=r"labels/p0.*images/p0.*15 rows instead of 16.*15 x 16 x 5.*16 x 16 x 5"
    ):
        pair(image, label)
    for row, shift, voxels in ((0, 0.01, "0.0375"), (3, 0.5, "0.125")):
        wrong = affine.copy()
        wrong[2, row] += shift
        save_volume(label, array, wrong)
        with pytest.raises(
            UserError, match=rf"labels/p0.*lies elsewhere than .*images/p0.*by up to {voxels} voxels"
        ):
            pair(image, label)
    save_volume(label, array, affine + 1e-5)
    pair(image, label)


def test_the_order_of_the_axes_may_differ(first: tuple[Path, Path], pair: Callable[..., CachedPair]) -> None:
    image, label = first
    # The same voxels at the same places, stored as (Z from above, Y, X) instead of (X, Y, Z).
    turned = heart_label(0).transpose(2, 1, 0)[::-1]
    affine = np.array([[0, 0, -1.5, 0], [0, -1.5, 0, 0], [-4.0, 0, 0, 16], [0, 0, 0, 1]])
    joined = pair(image, save_volume(label, turned, affine))
    assert np.allclose(joined.label.grid.affine, joined.image.grid.affine)
    assert joined.image.grid.affine.tolist()[0] == [0, -1.5, 0, 0]  # columns run to the left

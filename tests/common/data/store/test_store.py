from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.data.store import store as store_module
from common.data.store.reading import SliceReader
from common.data.store.records import FORMAT
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.errors import UserError
from tests.common.data.store.made import hounsfield, image, label, labels, save
from tests.common.data.test_bad_input import write_dicom, write_mhd


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
    volumes = SliceStore(tmp_path / "store", Geometry(5)).convert(requests)
    assert [(volume.source, volume.kind) for volume in volumes] == [(r.path, r.kind) for r in requests]
    assert [volume.values for volume in volumes] == [(), (0, 420, 600)] * 2
    assert all(volume.array.parent == tmp_path / "store" for volume in volumes)


def test_a_second_run_converts_and_writes_nothing(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SliceStore(tmp_path / "store", Geometry(5)).convert(requests)
    converted.clear()
    monkeypatch.setattr(store_module, "content_hash", None)  # nor does it read the sources
    monkeypatch.setattr(store_module, "usable_folder", None)  # a read-only store does
    second = SliceStore(tmp_path / "store", Geometry(5)).convert(requests)
    assert second == first and not converted
    assert all(np.array_equal(a.counts, b.counts) for a, b in zip(first, second, strict=True))


def test_relative_and_absolute_paths_are_one_file(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SliceStore(tmp_path / "store", Geometry(5))
    first = store.convert(requests[:1])
    monkeypatch.chdir(tmp_path / "set")
    assert store.convert([image(Path("../set/ct0.nii.gz"))]) == first and converted == ["ct0.nii.gz"]


def test_the_same_file_twice_is_converted_once(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    volumes = SliceStore(tmp_path / "store", Geometry(5)).convert([requests[0]] * 3)
    assert volumes[0] == volumes[2] and converted == ["ct0.nii.gz"]


def test_another_window_rebuilds_images_alone(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    store = SliceStore(tmp_path / "store", Geometry(5), workers=1)
    first = store.convert(requests)
    converted.clear()
    other = [image(r.path, Intensity("window", 0, 100)) if r.kind == "image" else r for r in requests]
    second = store.convert(other)
    assert sorted(converted) == ["ct0.nii.gz", "ct1.nii.gz"]
    assert (second[0].lower, second[0].upper) == (0, 100) and second[1] == first[1]
    converted.clear()
    assert store.convert(requests) == first and not converted  # the first window is still there


def test_another_interpolation_rebuilds_images_alone(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    SliceStore(tmp_path / "store", Geometry(5)).convert(requests)
    converted.clear()
    volumes = SliceStore(tmp_path / "store", Geometry(5, interpolation="linear")).convert(requests)
    assert sorted(converted) == ["ct0.nii.gz", "ct1.nii.gz"]
    assert volumes[1].geometry.interpolation == "linear"


@pytest.mark.parametrize("geometry", [Geometry(6), Geometry(5, "coronal"), Geometry(5, spacing=1.0)])
def test_another_geometry_rebuilds_all(
    tmp_path: Path, requests: list[Request], converted: list[str], geometry: Geometry
) -> None:
    SliceStore(tmp_path / "store", Geometry(5)).convert(requests)
    converted.clear()
    SliceStore(tmp_path / "store", geometry).convert(requests)
    assert len(converted) == 4


def test_changed_content_rebuilds_that_file_alone(
    tmp_path: Path, requests: list[Request], converted: list[str]
) -> None:
    store = SliceStore(tmp_path / "store", Geometry(5))
    first = store.convert(requests)
    converted.clear()
    save(requests[2].path, hounsfield(7))
    second = store.convert(requests)
    assert converted == ["ct1.nii.gz"] and second[0] == first[0]
    clean = SliceStore(tmp_path / "clean", Geometry(5)).convert(requests)
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")  # the old array is gone
    assert np.array_equal(SliceReader().image(second[2], 3), SliceReader().image(clean[2], 3))


def test_changed_times_alone_rebuild_nothing(
    tmp_path: Path, requests: list[Request], converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SliceStore(tmp_path / "store", Geometry(5))
    first = store.convert(requests)
    converted.clear()
    os.utime(requests[0].path, (1, 1))
    assert store.convert(requests) == first and not converted
    monkeypatch.setattr(store_module, "content_hash", None)
    assert store.convert(requests) == first  # the new time is on record


@pytest.mark.parametrize("kind", ["zmhd", "dicom"])
def test_every_part_of_a_volume_is_watched(tmp_path: Path, converted: list[str], kind: str) -> None:
    path = tmp_path / ("series" if kind == "dicom" else "a.mhd")
    store = SliceStore(tmp_path / "store", Geometry(5))
    if kind == "dicom":
        write_dicom(path, hounsfield())
        part = path / "003.dcm"
    else:
        write_mhd(path, hounsfield(), compression=True)
        part = tmp_path / "a.zraw"
    store.convert([image(path)])
    os.utime(part, (1, 1))
    store.convert([image(path)])
    assert len(converted) == 1
    if kind == "dicom":
        (path / "007.dcm").unlink()
    else:
        write_mhd(path, hounsfield(3), compression=True)
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
    store = SliceStore(tmp_path / "store", Geometry(5))
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
    store = SliceStore(tmp_path / "store", Geometry(5), workers=1)
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
    store = SliceStore(tmp_path / "store", Geometry(5))
    store.convert(requests)
    requests[0].path.unlink()
    with pytest.raises(UserError, match=r"ct0\.nii\.gz: no such file"):
        store.convert(requests)


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path: Path) -> None:
    assert SliceStore(tmp_path / "store", Geometry(5)).convert([]) == []
    assert not (tmp_path / "store").exists()

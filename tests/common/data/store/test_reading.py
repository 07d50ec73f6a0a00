from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from common.data.store import reading
from common.data.store.reading import SliceReader
from common.data.store.request import Geometry
from common.data.store.store import SliceStore
from common.data.store.volume import StoredVolume
from common.errors import UserError
from tests.common.data.store.made import hounsfield, image, label, labels, save


@pytest.fixture
def stored(tmp_path: Path) -> list[StoredVolume]:
    requests = [image(save(tmp_path / f"ct{seed}.nii", hounsfield(seed))) for seed in range(3)]
    requests.append(label(save(tmp_path / "heart.nii", labels())))
    return SliceStore(tmp_path / "store", Geometry(7), workers=1).convert(requests)


def test_slices_are_those_of_the_array(stored: list[StoredVolume]) -> None:
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
    (volume,) = SliceStore(tmp_path, Geometry(2)).convert([image(save(tmp_path / "a.nii", array))])
    assert SliceReader().image(volume, 0).tolist() == [[0, 1], [0, 1]]


def test_slices_are_read_into_what_is_given(stored: list[StoredVolume]) -> None:
    reader, batch = SliceReader(), np.zeros((2, 1, 7, 7), np.float32)
    result = reader.image(stored[1], 4, out=batch[1, 0])
    assert result.base is not None and batch[1, 0].any() and not batch[0].any()
    codes = np.zeros((2, 7, 7), np.uint8)
    reader.label(stored[3], 3, out=codes[1])
    assert codes[1].max() == 2 and not codes[0].any()


def test_a_result_is_not_touched_by_the_next_read(stored: list[StoredVolume]) -> None:
    reader = SliceReader()
    first = reader.image(stored[0], 0)
    before = first.copy()
    reader.image(stored[0], 7)
    assert np.array_equal(first, before)


@pytest.mark.parametrize("index", [-1, 8])
def test_slices_beyond_the_ends_are_errors(stored: list[StoredVolume], index: int) -> None:
    with pytest.raises(IndexError, match=f"slice {index} of 8"):
        SliceReader().image(stored[0], index)


def test_few_files_stay_open(stored: list[StoredVolume], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_OPEN", 2)
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


def test_readers_travel_to_workers_and_work_after_a_fork(stored: list[StoredVolume]) -> None:
    reader = SliceReader()
    expected = reader.image(stored[0], 2)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).image(stored[0], 2), expected)
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(reader.image(stored[0], 2), expected) else 1)
    assert np.array_equal(reader.image(stored[0], 2), expected)
    assert os.waitpid(child, 0)[1] == 0


def test_missing_and_short_arrays_are_named(stored: list[StoredVolume]) -> None:
    os.truncate(stored[0].array, 500)
    with pytest.raises(UserError, match=r"ct0-image-.*\.npy: cut short"):
        SliceReader().image(stored[0], 7)
    stored[1].array.unlink()
    with pytest.raises(UserError, match=r"ct1-image-.*\.npy: cannot be read"):
        SliceReader().image(stored[1], 0)

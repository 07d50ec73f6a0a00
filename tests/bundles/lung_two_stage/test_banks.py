"""Banks come back as they were saved; incomplete ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.banks import GENERATED, NoduleBank, NoduleRecord, SliceBank, SliceRecord
from common.errors import UserError


def nodules() -> NoduleBank:
    random = np.random.default_rng(0)
    records = [
        NoduleRecord("a", "patient_1", "solid", 7.5, 0.7),
        NoduleRecord("b", "", "solid", 9.0, 0.7, GENERATED, 0.9),
    ]
    hu = random.integers(-1000, 200, (2, 4, 4)).astype(np.int16)
    return NoduleBank(hu, random.integers(0, 256, (2, 4, 4)).astype(np.uint8), records)


def slices() -> SliceBank:
    hu = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    lung = (hu > 5).astype(np.uint8)
    return SliceBank(hu, lung, np.zeros_like(lung), [SliceRecord(name, name, 2.0) for name in "ab"])


@pytest.mark.parametrize("mapped", [False, True])
def test_nodules_come_back(tmp_path: Path, mapped: bool) -> None:
    bank = nodules()
    read = NoduleBank.load(bank.save(tmp_path / "bank"), mapped)
    np.testing.assert_array_equal(read.hu, bank.hu)
    np.testing.assert_array_equal(read.alpha, bank.alpha)
    assert list(read.records) == list(bank.records)
    assert isinstance(read.hu, np.memmap) is mapped and read.hu.flags.writeable is not mapped


def test_slices_come_back_and_can_be_chosen(tmp_path: Path) -> None:
    read = SliceBank.load(slices().save(tmp_path)).select(lambda record: record.patient == "b")
    assert len(read) == 1 and read.hu[0, 0, 0] == 12 and read.lung.shape == read.nodules.shape == (1, 3, 4)


def test_only_the_chosen_nodules_stay() -> None:
    kept = nodules().select(lambda record: record.origin == GENERATED)
    assert [record.name for record in kept.records] == ["b"]
    np.testing.assert_array_equal(kept.alpha[0], nodules().alpha[1])


def test_what_is_not_there_or_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bank of nodules here"):
        NoduleBank.load(tmp_path)
    folder = nodules().save(tmp_path / "short")
    np.save(folder / "alpha.npy", nodules().alpha[:1])
    with pytest.raises(UserError, match=r"alpha\.npy: 1 entries for 2 records"):
        NoduleBank.load(folder)
    (folder / "alpha.npy").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"alpha\.npy: cannot be read"):
        NoduleBank.load(folder)


def test_an_empty_bank_is_refused(tmp_path: Path) -> None:
    folder = slices().select(lambda _: False).save(tmp_path)
    with pytest.raises(UserError, match="holds no slices"):
        SliceBank.load(folder)

"""The sets of a diagnosis: imbalanced, balanced, apart by patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.diagnosis.sources import Sources, read_sources
from common.errors import UserError
from tests.bundles.lung_two_stage.made_work import made_work, slice_bank


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_work(tmp_path_factory.mktemp("work"))


def read(work: Path, **settings: object) -> Sources:
    given = {"positives": 3, "synthetic": 16, "held_out": 0.25, **settings}
    return read_sources(work / "extraction", work / "composites", work / "extraction" / "normals", **given)


def shares(sources: Sources, regime: str) -> tuple[int, int]:
    """Slices with nodules, and all."""
    part = sources.training(regime)
    return int(part.has_nodule.sum()), len(part)


def test_each_regime_has_its_shares(work: Path) -> None:
    sources = read(work)
    assert shares(sources, "real") == (3, 19)  # 12 normals, 4 others without and 3 of 4 with
    assert shares(sources, "oversampled") == (16, 32)
    assert shares(sources, "synthetic") == (8, 16)
    assert shares(sources, "both") == (11, 35)
    with pytest.raises(UserError, match="regime 'all' is unknown"):
        sources.training("all")


def test_patients_are_in_one_part_only(work: Path) -> None:
    sources = read(work)
    parts = [set(p.patients) - {""} for p in (sources.real, sources.validation, sources.test)]
    assert [len(part) for part in parts] == [5, 2, 4]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert set(sources.synthetic.patients) == {"", "a", "b", "c"}


def test_what_composites_lie_on_goes_their_way(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "bundles.lung_two_stage.diagnosis.sources.load_enhancer"
    monkeypatch.setattr(place, lambda path, size: lambda images: images.flip(-1))
    plain, changed = read(work), read(work, enhancer_path="model.pt")
    has = plain.synthetic.has_nodule
    np.testing.assert_array_equal(plain.synthetic.images[has], changed.synthetic.images[has])
    np.testing.assert_array_equal(plain.synthetic.images[~has].flip(-1), changed.synthetic.images[~has])


def test_a_test_patient_of_the_training_is_refused(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    slice_bank(["t", "m"], 2, [1, 0]).save(work / "extraction" / "tests")
    with pytest.raises(UserError, match="patient m is in"):
        read(work)
    slice_bank(["t", "u"], 2, [0]).save(work / "extraction" / "tests")
    with pytest.raises(UserError, match="slices with nodules and without are needed"):
        read(work)

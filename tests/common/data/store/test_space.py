from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.data.store.records import Job
from common.data.store.request import Geometry, Request
from common.data.store.space import array_bytes
from common.data.store.store import SliceStore
from common.errors import UserError
from tests.common.data.store.made import hounsfield, image, label, labels, save
from tests.common.data.test_bad_input import write_dicom, write_mhd


@pytest.mark.parametrize("kind", ["nii.gz", "mhd", "mha", "dicom"])
def test_headers_tell_the_size_of_the_arrays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("series" if kind == "dicom" else f"a.{kind}")
    if kind == "nii.gz":
        save(path, hounsfield())
    elif kind == "dicom":
        write_dicom(path, hounsfield())
    else:
        write_mhd(path, hounsfield())
    sizes = [array_bytes(Job(image(path), Geometry(16, axis))) for axis in ("axial", "coronal", "sagittal")]
    assert sizes == [8 * 512, 10 * 512, 12 * 512]


def test_labels_take_half_and_what_cannot_be_read_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "heart.nii", labels())
    assert array_bytes(Job(label(path), Geometry(16))) == 8 * 256
    assert array_bytes(Job(Request(tmp_path / "a.png", "label"), Geometry(16))) == 256
    path.write_bytes(b"broken")
    assert array_bytes(Job(label(path), Geometry(16))) == 0
    assert array_bytes(Job(label(tmp_path / "missing.nii"), Geometry(16))) == 0


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.nii.gz", hounsfield())
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    store = tmp_path / "store"
    needed = f"{store}: converting 1 file needs 33 MB but 20 MB are free"  # 8 x 1024 x 1024 x 2, and 16 kept
    with pytest.raises(UserError, match=needed):
        SliceStore(store, Geometry(1024)).convert([image(path)])
    assert not list(store.glob("*.npy"))
    SliceStore(store, Geometry(8)).convert([image(path)])

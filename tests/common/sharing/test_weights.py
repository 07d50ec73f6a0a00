from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from monai.bundle.scripts import download_large_files

from common.errors import UserError
from common.files import write_json
from common.paths import repository_root
from common.sharing.contents import bundle_contents
from common.sharing.weights import copy_large, listed, parted, shared_bytes, trained_models


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A ``models`` folder after a training."""
    folder = tmp_path / "models"
    folder.mkdir()
    sizes = {"model.pt": 100, "model.json": 10, "resume.pt": 200, "split.json": 20, ".17.model.pt": 5}
    for name, size in sizes.items():
        (folder / name).write_bytes(b"x" * size)
    return folder


def test_state_of_trainings_and_leftovers_are_kept_back(models: Path) -> None:
    assert list(trained_models(models)) == ["models/model.json", "models/model.pt"]
    assert trained_models(models / "nonesuch") == {}


def test_patients_names_are_not_shared(tmp_path: Path) -> None:
    rule = {"rule": "hash 1", "seed": 3, "fractions": [0.6, 0.2, 0.2]}
    facts = {"image_size": 64, "splits": {"train": ["Doe", "Roe"], "val": ["Moe"], "test": []}, "split": rule}
    write_json(tmp_path / "model.json", facts)
    shared = shared_bytes(tmp_path / "model.json")
    assert not any(name in shared for name in (b"Doe", b"Roe", b"Moe"))
    counts = {"train": 2, "val": 1, "test": 0}
    assert json.loads(shared) == {"image_size": 64, "split": rule, "patients": counts}
    assert json.loads((tmp_path / "model.json").read_bytes()) == facts
    write_json(tmp_path / "other.json", {"a": 1.5})
    assert shared_bytes(tmp_path / "other.json") == (tmp_path / "other.json").read_bytes()
    models = {"models/model.json": tmp_path / "model.json"}
    contents = bundle_contents(repository_root(), "dcgan_covid", models)
    assert contents["models/model.json"] == shared and not any(b"Moe" in part for part in contents.values())


def test_large_files_are_listed_as_monai_downloads_them(models: Path, tmp_path: Path) -> None:
    small, large = parted(trained_models(models), largest=50)
    assert list(small) == ["models/model.json"] and list(large) == ["models/model.pt"]
    copy_large(large, tmp_path / "dist" / "mine_v1.0.0")
    unpacked = tmp_path / "mine"
    unpacked.mkdir()
    address = (tmp_path / "dist" / "mine_v1.0.0").as_uri()
    (unpacked / "large_files.yml").write_bytes(listed(large, address))
    assert hashlib.sha256(b"x" * 100).hexdigest() in (unpacked / "large_files.yml").read_text()
    download_large_files(str(unpacked))
    assert (unpacked / "models" / "model.pt").read_bytes() == b"x" * 100


def test_a_large_file_needs_an_address(models: Path) -> None:
    _, large = parted(trained_models(models), largest=50)
    with pytest.raises(UserError, match=r"model.pt: .*--url"):
        listed(large, None)

"""``scripts/build_bundle.py all``: the same bytes each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.errors import UserError
from common.sharing.building import ALL, Settings, build, bundle_names


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.slow
def test_all_bundles_twice_are_equal_files(tmp_path: Path) -> None:
    for part in ("first", "second"):
        built = build(Settings(ALL, tmp_path / part))
        assert [path.name.partition("_v")[0] for path in built] == bundle_names()
    first = hashes(tmp_path / "first")
    assert {"SHA256SUMS", "models/model_info.json"} < set(first) and len(bundle_names()) == 4
    assert first == hashes(tmp_path / "second")


def test_one_repository_holds_one_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--push_to_hub: takes one bundle, not all"):
        build(Settings(ALL, tmp_path, push_to_hub="OWNER/NAME"))

from __future__ import annotations

from pathlib import Path

import pytest

from common import paths
from common.errors import UserError
from common.paths import bundle_root, repository_root


def test_the_repository_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (repository_root() / "common" / "paths.py").is_file()
    assert bundle_root("pix2pix_covid") == str(repository_root() / "bundles" / "pix2pix_covid")


def test_in_an_unpacked_bundle_the_root_itself_is_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    assert bundle_root("pix2pix_covid") == str(tmp_path)


def test_an_unknown_bundle_is_one_line() -> None:
    with pytest.raises(UserError, match="nonesuch: no such bundle"):
        bundle_root("nonesuch")

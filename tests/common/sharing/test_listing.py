from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import get_all_bundles_list, get_bundle_info, get_bundle_versions, scripts

from common.files import read_json
from common.sharing.listing import update_listing


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of zips whose listing MONAI reads as if it were on GitHub."""
    for name in ("a_b_v0.1.0", "a_b_v0.2.0", "c_v0.1.0"):
        (tmp_path / f"{name}.zip").write_bytes(name.encode())

    def answer(url: str, **_: Any) -> Any:
        text = (tmp_path / "models" / url.rpartition("/models/")[2]).read_text()
        return SimpleNamespace(text=text, raise_for_status=lambda: None)

    monkeypatch.setattr(scripts, "has_requests", True)
    monkeypatch.setattr(scripts, "requests", SimpleNamespace(get=answer))
    return tmp_path


def test_monai_lists_what_is_there(dist: Path) -> None:
    update_listing(dist, "https://example.org/x")
    assert get_all_bundles_list("owner/repo") == [("a_b", "0.2.0"), ("c", "0.1.0")]
    assert get_bundle_versions("a_b", "owner/repo")["all_versions"] == ["0.1.0", "0.2.0"]
    address = get_bundle_info("a_b", repo="owner/repo")["browser_download_url"]
    assert address == "https://example.org/x/a_b_v0.2.0.zip"


def test_checksums_are_the_files(dist: Path) -> None:
    update_listing(dist, None)
    expected = hashlib.sha256(b"c_v0.1.0").hexdigest()
    assert f"{expected}  c_v0.1.0.zip\n" in (dist / "SHA256SUMS").read_text()
    entry = read_json(dist / "models" / "model_info.json")["c_v0.1.0"]
    assert entry == {"checksum": expected, "source": "c_v0.1.0.zip"}


def test_earlier_addresses_stay_and_what_is_gone_goes(dist: Path) -> None:
    update_listing(dist, "https://example.org/x")
    (dist / "a_b_v0.1.0.zip").unlink()
    (dist / "c_v0.2.0.zip").write_bytes(b"new")
    update_listing(dist, None)
    sources = {
        name: entry["source"] for name, entry in read_json(dist / "models" / "model_info.json").items()
    }
    assert sources == {
        "a_b_v0.2.0": "https://example.org/x/a_b_v0.2.0.zip",
        "c_v0.1.0": "https://example.org/x/c_v0.1.0.zip",
        "c_v0.2.0": "c_v0.2.0.zip",
    }

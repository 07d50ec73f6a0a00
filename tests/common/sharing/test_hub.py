from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import scripts

from common.errors import UserError
from common.sharing.archive import write_archive
from common.sharing.hub import push


class StubClient:
    """Stands for ``huggingface_hub.HfApi``: keeps what it is asked for."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, **given: Any) -> None:
        self.calls["repository"] = given

    def create_tag(self, **given: Any) -> None:
        self.calls["tag"] = given["tag"]

    def upload_folder(self, repo_id: str, folder_path: str) -> str:
        folder = Path(folder_path)
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return f"https://hub/{repo_id}"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> StubClient:
    """The hub's client, without a hub."""
    stub = StubClient()
    monkeypatch.setattr(scripts, "huggingface_hub", SimpleNamespace(HfApi=lambda token: stub))
    return stub


def archive(folder: Path) -> Path:
    contents = {
        "LICENSE": b"Apache License, Version 2.0",
        "docs/README.md": b"# title",
        "large_files.yml": b"x",
    }
    write_archive(folder / "mine_v1.2.0.zip", "mine", contents)
    return folder / "mine_v1.2.0.zip"


def test_the_hub_gets_what_the_zip_holds(client: StubClient, tmp_path: Path) -> None:
    assert push("owner/mine", "mine", archive(tmp_path)) == "https://hub/owner/mine"
    assert client.calls["repository"] == {"repo_id": "owner/mine", "private": True, "exist_ok": True}
    assert client.calls["tag"] == "1.2.0"
    assert set(client.files) == {"LICENSE", "docs/README.md", "README.md", "large_files.yml"}
    assert b"license: apache-2.0" in client.files["README.md"]  # the model card


def test_large_files_go_there_themselves(client: StubClient, tmp_path: Path) -> None:
    packed = archive(tmp_path)
    (tmp_path / "mine_v1.2.0" / "models").mkdir(parents=True)
    (tmp_path / "mine_v1.2.0" / "models" / "model.pt").write_bytes(b"large")
    push("owner/mine", "mine", packed)
    assert client.files["models/model.pt"] == b"large" and "large_files.yml" not in client.files


def test_a_wrong_repository_is_one_line(client: StubClient, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write OWNER/NAME"):
        push("mine", "mine", archive(tmp_path))
    assert not client.calls

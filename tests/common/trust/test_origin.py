"""Which code and which model a report is of."""

from __future__ import annotations

import re
from pathlib import Path

from common.paths import repository_root
from common.trust.origin import UNKNOWN, commit, fingerprint


def test_a_folder_without_history_has_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) == UNKNOWN
    found = commit(repository_root())
    assert found == UNKNOWN or re.fullmatch(r"[0-9a-f]{12}(, with changes)?", found)


def test_a_fingerprint_is_the_content(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"abc")
    assert fingerprint(tmp_path / "model.pt") == "ba7816bf8f01"

"""From a bundle's folder to its own explorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import pytest

from common.errors import UserError
from common.explorer.command import explore


def test_settings_get_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "configs" / "explore.yaml"
    config.parent.mkdir()
    config.touch()
    seen: dict[str, Any] = {}
    monkeypatch.setattr(monai.bundle, "run", lambda **given: seen.update(given))
    settings = {"seed": "3", "plane_seeds": "1,2,3", "output": "a.html", "plane_class": "null"}
    explore(tmp_path, settings)
    overrides = {"seed": 3, "plane_seeds": "1,2,3", "output": "a.html", "plane_class": None}
    assert seen == {"run_id": "explorer", "config_file": str(config), **overrides}


def test_a_folder_without_an_explorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config; --bundle takes the folder of a bundle"):
        explore(tmp_path, {})

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import common
from common.downloads import OtherDownloads, install_finder


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ``sys.path`` whose ``common`` has parts that the repository's has not."""
    for module in ("only_there.py", "metrics/only_there.py"):
        (tmp_path / "common" / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "common" / module).write_text("from common.errors import UserError\nplace = __file__\n")
    (tmp_path / "common" / "errors.py").write_text("raise AssertionError('the first package has this one')\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith(".only_there")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["common.only_there", "common.metrics.only_there"])
def test_what_the_first_download_lacks_comes_from_the_others(download: Path, name: str) -> None:
    module = importlib.import_module(name)
    assert Path(module.place).is_relative_to(download)
    assert module.UserError is importlib.import_module("common.errors").UserError


def test_what_nobody_has_is_still_missing(download: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"common\.nowhere"):
        importlib.import_module("common.nowhere")
    assert OtherDownloads().find_spec("commonplace.only_there", None) is None
    assert OtherDownloads().find_spec("common", None) is None


def test_one_finder_is_enough() -> None:
    install_finder()
    importlib.reload(common)
    assert sum(type(finder).__name__ == "OtherDownloads" for finder in sys.meta_path) == 1

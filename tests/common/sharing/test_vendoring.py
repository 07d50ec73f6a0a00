from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.sharing.vendoring import code_needed, module_files, shown_files

TREE = {
    "common/__init__.py": "import common.always\n",
    "common/always.py": "",
    "common/package/__init__.py": "",
    "common/package/used.py": "from common.package import second\nPAGE = 'page'\nSCHEMA = 'x.schema.json'\n",
    "common/package/second.py": "from common.package.third import Thing\nREGISTRY = 'sets.json'\n",
    "common/package/third.py": "def f():\n    from bundles.mine.parts.late import x\n",
    "common/package/unused.py": "DATA = 'unused.json'\n",
    "common/package/unused.json": "{}",
    "common/package/x.schema.json": "{}",
    "common/package/page/index.html": "",
    "common/package/page/.hidden": "",
    "bundles/mine/networks.py": "",
    "bundles/mine/parts/late.py": "import bundles.mine.networks\n",
    "bundles/mine/unused.py": "",
    "bundles/other/networks.py": "",
    "sets.json": "{}",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository."""
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_is_followed_by_its_imports_and_brings_its_data(root: Path) -> None:
    needed = {path.as_posix() for path in code_needed(root, "mine", ["common.package.used.Thing"])}
    assert needed == {
        *("common/__init__.py", "common/always.py", "common/package/__init__.py", "common/package/used.py"),
        *("common/package/second.py", "common/package/third.py", "common/package/x.schema.json"),
        *("common/package/page/index.html", "bundles/mine/parts/late.py", "bundles/mine/networks.py"),
        "sets.json",
    }


def test_a_name_ends_at_its_innermost_module(root: Path) -> None:
    found = module_files(root, "common.package.third.Thing.method")
    assert [path.name for path in found] == ["__init__.py", "__init__.py", "third.py"]
    assert module_files(root, "bundles.mine") == []


def test_another_bundle_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"bundles/mine: needs bundles.other.networks.*move it to common"):
        code_needed(root, "mine", ["bundles.other.networks"])


def test_hidden_files_and_caches_are_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", "b/c.txt", ".git/x", "__pycache__/y.pyc", "d.txt~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.name for path in shown_files(tmp_path)] == ["a.txt", "c.txt"]

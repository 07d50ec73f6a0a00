"""What the build adds to a config so that a download finds its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

import common
from common.errors import UserError
from common.tools import standalone as module
from common.tools.standalone import check_build, code_files, fingerprint, imported_modules, standalone

CONFIG: dict[str, Any] = {
    "imports": ["$import math", "$import common.paths as paths", "$import common.errors as numbers"],
    "size": 3,
    "root": "$paths.bundle_root('pix2pix_covid')",
    "network": {
        "_target_": "bundles.pix2pix_covid.networks.UnetGenerator",
        "_requires_": "@size",
        "levels": "@size",
    },
    "layer": {"_target_": "torch.nn.Linear", "in_features": "$numbers.check_int('size', @size, least=1)"},
    "text": "paths.bundle_root",
}


def expression(text: str) -> Any:
    """What becomes of an expression beside the modules of `CONFIG`."""
    return standalone({**CONFIG, "x": text}, [], "")["x"]


def test_modules_and_components_wait_for_the_code() -> None:
    changed = standalone(CONFIG, [], "hash")
    assert list(changed)[:3] == ["_path_", "_code_", "_modules_"]
    assert changed["_code_"]["_requires_"] == "@_path_" and changed["_code_"]["build"] == "hash"
    assert changed["_modules_"]["paths"] == {
        "_target_": "importlib.import_module",
        "_requires_": "@_code_",
        "name": "common.paths",
    }
    assert changed["network"]["_requires_"] == ["@size", "@_code_"]
    assert "_requires_" not in changed["layer"] and changed["imports"] == ["$import math"]
    assert changed["text"] == CONFIG["text"]


def test_the_changed_config_gives_what_the_yaml_gives() -> None:
    build = fingerprint(code_files(Path(common.__file__).parent))
    for config in (CONFIG, standalone(CONFIG, [], build)):
        parser = ConfigParser(config)
        parser.parse()
        assert str(parser.get_parsed_content("root")).endswith("bundles/pix2pix_covid")
        assert parser.get_parsed_content("layer#in_features") == 3


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("$paths.a(numbers.b, @size)", "$@_modules_#paths.a(@_modules_#numbers.b, @size)"),
        ("$@paths.a + math.pi", "$@paths.a + math.pi"),
        ("$x.paths['paths'](paths=1)", "$x.paths['paths'](paths=1)"),
        ("$[paths for paths in @size]", "$[paths for paths in @size]"),
        ("$(lambda numbers: numbers + paths.a)", "$(lambda numbers: numbers + @_modules_#paths.a)"),
        ("$'Größe' + paths.a", "$'Größe' + @_modules_#paths.a"),
        ("$import common.paths as paths", "$import common.paths as paths"),
    ],
)
def test_names_of_modules_become_references(text: str, changed: str) -> None:
    assert expression(text) == changed


def test_a_broken_expression_is_one_line() -> None:
    with pytest.raises(UserError, match=r"expression '\$paths\.\(' cannot be read"):
        expression("$paths.(")


def test_an_overlay_adds_to_its_bases_modules() -> None:
    overlay = {"+imports": ["$import bundles.x.y as y"], "size": "$y.a(paths.b)"}
    assert imported_modules(overlay) == {"y": "bundles.x.y"}
    assert standalone(overlay, ["paths"], "hash") == {
        "_modules_#y": {
            "_target_": "importlib.import_module",
            "_requires_": "@_code_",
            "name": "bundles.x.y",
        },
        "+imports": [],
        "size": "$@_modules_#y.a(@_modules_#paths.b)",
    }


def test_another_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common" / "__pycache__").mkdir(parents=True)
    (tmp_path / "common" / "__init__.py").write_text("")
    monkeypatch.setattr(module.common, "__file__", str(tmp_path / "common" / "__init__.py"))
    build = fingerprint({"common/__init__.py": b""})
    (tmp_path / "common" / "__pycache__" / "x.pyc").write_text("a cache is no code")
    check_build(build)
    (tmp_path / "common" / "new.py").write_text("")
    with pytest.raises(UserError, match="another version of common than the bundle was built with"):
        check_build(build)

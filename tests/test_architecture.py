"""docs/architecture.md names files, classes and functions: they exist, and no walk is long."""

from __future__ import annotations

import ast
import re

import pytest

from common.paths import repository_root

PAGE = repository_root() / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:bundles|common|scripts|tests)/[\w/]+\.\w+)(?:::(\w+))?`", TEXT)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_is_named_exists(file: str, name: str) -> None:
    path = repository_root() / file
    assert path.is_file()
    if name:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_walks_are_five_and_short() -> None:
    walks = TEXT.split("## Five walks")[1].split("## ")[0].split("\n**")[1:]
    files = [set(re.findall(r"`((?:bundles|common|scripts)/[\w/]+\.\w+)", walk)) for walk in walks]
    assert len(walks) == 5 and len(NAMED) > 30
    most = [8 if "composite" in walk else 7 for walk in walks]
    assert all(len(named) <= bound for named, bound in zip(files, most, strict=True))


def test_the_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 120

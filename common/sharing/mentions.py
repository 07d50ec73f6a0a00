"""Which modules of this project a text names: a Python file by its imports, a config by its targets."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import NamedTuple

PACKAGES = ("common", "bundles")
DOTTED = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+")


class Mentions(NamedTuple):
    """What a Python source names.

    Attributes:
        modules: dotted names of this project that it imports anywhere, or holds as a text of its own.
        texts: all texts in it, such as names of files.
    """

    modules: frozenset[str]
    texts: frozenset[str]


@cache  # bundles share most of their code
def named_in_code(source: str) -> Mentions:
    """What a Python source names."""
    modules: set[str] = set()
    texts: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` and `from module import name` look alike
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    modules |= {text for text in texts if DOTTED.fullmatch(text)}
    own = (name for name in modules if name.partition(".")[0] in PACKAGES)
    return Mentions(frozenset(own), frozenset(texts))


def named_in_text(text: str) -> set[str]:
    """Dotted names in a config's text: ``_target_``, module names, expressions."""
    return set(DOTTED.findall(text))

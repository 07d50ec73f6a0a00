from __future__ import annotations

from common.sharing.mentions import named_in_code, named_in_text

SOURCE = '''
"""Speaks of common.words in a text."""
import common.plain
import numpy.linalg
from common.package import thing as other
from . import beside

NAME = "common.by_name.Thing"
FILE = "page"

def lazily():
    from bundles.mine import late
'''


def test_imports_anywhere_and_names_that_stand_alone() -> None:
    expected = {"common.plain", "common.package.thing", "common.by_name.Thing", "bundles.mine.late"}
    found = named_in_code(SOURCE)
    assert found.modules == expected
    assert {"page", "common.by_name.Thing"} < found.texts


def test_a_config_names_modules_in_targets_and_expressions() -> None:
    text = '{"_target_": "common.a.B", "x": "$common.c.d(1)", "y": "uncommon.e", "name": "bundles.f.g"}'
    assert named_in_text(text) == {"common.a.B", "common.c.d", "bundles.f.g"}

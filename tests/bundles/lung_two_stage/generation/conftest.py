"""A ``work`` folder with made banks, for all tests of the generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.lung_two_stage.generation.made import made_banks


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made banks in ``extraction``."""
    return made_banks(tmp_path_factory.mktemp("generation") / "work")

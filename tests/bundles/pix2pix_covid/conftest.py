"""The tests of this folder are about one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.case import BundleCase
from tests.bundles.pix2pix_covid.case import CASE


@pytest.fixture
def case() -> BundleCase:
    """This folder's bundle."""
    return CASE


@pytest.fixture
def pairs(data: Path) -> Path:
    """The made pairs."""
    return data

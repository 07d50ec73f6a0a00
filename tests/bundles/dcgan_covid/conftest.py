"""The tests of this folder are about one bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.case import BundleCase
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made import make_halves, training
from tests.bundles.runs import Run, forked


@pytest.fixture
def case() -> BundleCase:
    """This folder's bundle."""
    return CASE


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes that an autoencoder learns in seconds."""
    folder = tmp_path_factory.mktemp("halves") / "data"
    make_halves(folder)
    return folder


@pytest.fixture(scope="session")
def autoencoder(halves: Path) -> tuple[Path, Run]:
    """The output folder of an autoencoder's training on the halves, and what it printed."""
    folder = halves.with_name("run")
    return folder, forked(training(halves, folder), halves.with_name("log"))

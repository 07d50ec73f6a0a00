"""For each bundle a made data set and one trained run, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles.case import BundleCase
from tests.bundles.cases import CASES, SLOW
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]


PARAMETERS = [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW), id=case.name) for case in CASES]


@pytest.fixture(params=PARAMETERS)
def case(request: pytest.FixtureRequest) -> BundleCase:
    """Each bundle in turn; the folders of single bundles name theirs."""
    bundle: BundleCase = request.param
    return bundle


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BundleCase], Path]:
    """The folder of a bundle's made data set."""

    folders: dict[str, Path] = {}

    def made(case: BundleCase) -> Path:
        if case.name not in folders:
            folders[case.name] = tmp_path_factory.mktemp(case.name) / "data"
            folders[case.name].mkdir()
            case.make_data(folders[case.name])
        return folders[case.name]

    return made


@pytest.fixture(scope="session")
def run_of(data_of: Callable[[BundleCase], Path]) -> Callable[[BundleCase], Trained]:
    """A bundle's run of two epochs, started in another folder: its own folder, and what it printed."""
    done: dict[str, Trained] = {}

    def trained(case: BundleCase) -> Trained:
        if case.name not in done:
            data = data_of(case)
            folder = data.with_name("run")
            run = forked(case.training(data, folder.name, max_epochs=2), folder, cwd=folder.parent)
            done[case.name] = folder, run
        return done[case.name]

    return trained


@pytest.fixture
def data(case: BundleCase, data_of: Callable[[BundleCase], Path]) -> Path:
    """The made data set of the test's bundle."""
    return data_of(case)


@pytest.fixture
def trained(case: BundleCase, run_of: Callable[[BundleCase], Trained]) -> Trained:
    """The folder of a run of two epochs, and what it printed."""
    return run_of(case)

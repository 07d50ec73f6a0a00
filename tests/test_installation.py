"""The project as ``make setup`` installs it: in place, for any working directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests.bundles.runs import python
from tests.conftest import ROOT

PROJECT = "synthetic-ct-bundles"
PROGRAM = """
from importlib.util import find_spec

for name in ("common", "bundles.pix2pix_covid.networks", "tests.bench.harness"):
    print(find_spec(name).origin)
"""


def installed_checkout() -> Path:
    """Where the project lies that is installed in place; fails where there is none."""
    found = list(Distribution.discover(name=PROJECT, path=[sysconfig.get_path("purelib")]))
    source = json.loads(found[0].read_text("direct_url.json") or "{}") if found else {}
    assert source.get("dir_info", {}).get("editable"), "not installed in place: run make setup"
    return Path(source["url"].removeprefix("file://"))


def test_the_code_is_found_from_another_folder(tmp_path: Path) -> None:
    if installed_checkout().resolve() != ROOT:
        pytest.skip(f"this environment has {installed_checkout()} installed, not {ROOT}")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    files = ("common/__init__.py", "bundles/pix2pix_covid/networks.py", "tests/bench/harness.py")
    assert done.stdout.split() == [str(ROOT / file) for file in files], done.stderr


def test_a_checkout_on_the_path_comes_before_the_installed_one(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-c", "import common; print(common.__file__)"]
    done = subprocess.run(line, cwd=tmp_path.parent, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "common" / "__init__.py")], done.stderr


def test_an_environment_without_the_project_does_not_see_it(tmp_path: Path) -> None:
    """What the tests of downloads rest on."""
    interpreter, environment = python(installed=False)
    for module, code in (("numpy", 0), ("common", 1)):
        done = subprocess.run(
            [*interpreter, "-c", f"import {module}"], cwd=tmp_path, env=environment, capture_output=True
        )
        assert done.returncode == code, done.stderr


def imported(cwd: Path, program: str) -> subprocess.CompletedProcess[str]:
    """A program that begins like a config, in a folder that Python searches first."""
    line = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_projects_packages_come_before_those_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise RuntimeError('another project')")
    (tmp_path / "bundles" / "mine").mkdir(parents=True)
    done = imported(tmp_path, "import synthetic_ct_bundles, common.errors; print(common.__file__)")
    assert done.stdout.strip() == str(ROOT / "common" / "__init__.py"), done.stderr


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("bundles", "import synthetic_ct_bundles"),
        ("common", "import common, synthetic_ct_bundles"),  # a process that has imported it
    ],
)
def test_a_package_that_hides_the_projects_is_named_in_one_line(
    tmp_path: Path, name: str, program: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = imported(tmp_path, program)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path / name}: hides this project's package '{name}' ({ROOT / name}); "
        "rename that one, or run from another folder\n"
    )

"""The zoo's rules, on a made bundle and on those of the repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from common.files import read_json
from common.paths import repository_root
from common.sharing.building import bundle_names
from common.sharing.rules import violations

BUNDLES = repository_root() / "bundles"


@pytest.mark.parametrize("name", bundle_names())
def test_every_bundle_keeps_them(name: str) -> None:
    assert violations(BUNDLES / name) == []


@pytest.mark.parametrize("name", bundle_names())
def test_the_versions_it_names_are_those_that_were_tested(name: str) -> None:
    pinned = dict(
        line.split("==")
        for line in (repository_root() / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    metadata = read_json(BUNDLES / name / "configs" / "metadata.json")
    named = metadata["required_packages_version"]
    named |= {key: metadata[f"{long}_version"] for key, long in (("monai", "monai"), ("torch", "pytorch"))}
    assert named == {package: pinned[package] for package in named}


def test_each_lack_is_one_line(tmp_path: Path) -> None:
    bundle = tmp_path / "mine"
    shutil.copytree(
        BUNDLES / "pix2pix_covid", bundle, ignore=shutil.ignore_patterns("models", "logs", "eval", "data")
    )
    metadata = read_json(bundle / "configs" / "metadata.json")
    del metadata["intended_use"]
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata | {"version": "0.9.0"}))
    (bundle / "LICENSE").unlink()
    (bundle / "configs" / "inference.yaml").unlink()
    readme = (
        (bundle / "docs" / "README.md")
        .read_text()
        .replace("## Data", "## Something")
        .replace("diagnosis", "x")
    )
    (bundle / "docs" / "README.md").write_text(readme)
    found = [line.removeprefix(f"{bundle}/") for line in violations(bundle)]
    assert found == [
        "LICENSE: missing",
        "configs/inference.yaml: missing",
        "configs/metadata.json: no 'intended_use'",
        "configs/metadata.json: changelog does not speak of version 0.9.0",
        "docs/README.md: no section 'Data'",
        "docs/README.md: does not say what it is not for ('not for diagnosis')",
    ]

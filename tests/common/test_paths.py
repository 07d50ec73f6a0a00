from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from common import paths
from common.errors import UserError
from common.paths import bundle_root, repository_root


def test_the_repository_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (repository_root() / "common" / "paths.py").is_file()
    assert bundle_root("pix2pix_covid") == str(repository_root() / "bundles" / "pix2pix_covid")


def test_in_an_unpacked_bundle_the_root_itself_is_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    assert bundle_root("pix2pix_covid") == str(tmp_path)


def test_an_unknown_bundle_is_one_line() -> None:
    with pytest.raises(UserError, match="nonesuch: no such bundle"):
        bundle_root("nonesuch")


@pytest.mark.parametrize("folder", ["renamed/bundles/b", "b"])
def test_the_bundle_whose_config_is_evaluated_comes_first(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    bundle = tmp_path / folder.split("/")[0]
    (bundle / "configs").mkdir()
    (bundle / "configs" / "metadata.json").write_text("{}")
    config = bundle / "configs" / "x.yaml"
    config.write_text(
        "imports:\n- $import common.paths as paths\nnetwork_def: $paths.bundle_root('b')\n"
        "inferer: $paths.bundle_root('pix2pix_covid')\n"
    )
    workflow = ConfigWorkflow(str(config), workflow_type="infer")
    workflow.initialize()
    assert workflow.network_def == str(bundle)
    assert workflow.inferer == str(repository_root() / "bundles" / "pix2pix_covid")

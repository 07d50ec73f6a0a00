import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.data import obtain as module
from common.data.download import Digests
from common.data.obtain import arrange, instructions, obtain, table
from common.data.registry import load_registry
from common.errors import UserError

REGISTRY = load_registry()


def training_zip(path):
    """An archive like COVID-SemiSeg's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.parent / "picture.png"
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(picture)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("Doctor-label", "Pseudo-label"):
            for kind, suffix in (("Imgs", "jpg"), ("GT", "png"), ("Edge", "png")):
                name = f"Data-1_coronacases_org_001_1.{suffix}"
                archive.write(picture, f"LungInfection-Train/{part}/{kind}/{name}")
    picture.unlink()


@pytest.fixture
def fetched(monkeypatch):
    """Replaces the network: each download writes COVID-SemiSeg's archive."""
    urls = []

    def fake(url, target, sha256=None, md5=None, *, progress=True):
        urls.append(url)
        training_zip(target)
        return Digests("ab" * 32, "cd" * 16)

    monkeypatch.setattr(module, "download", fake)
    return urls


def test_download_unpack_arrange_and_find(fetched, tmp_path, capsys):
    dataset = REGISTRY["covid_semiseg"]
    folder = obtain(dataset, tmp_path, progress=False)
    assert folder == tmp_path / "covid_semiseg"
    for place in ("doctor/images", "doctor/masks", "pseudo/images", "pseudo/masks"):
        assert len(list((folder / place).iterdir())) == 1
    assert f"LungInfection-Train.zip: sha256 {'ab' * 32}" in capsys.readouterr().out
    assert fetched == ["http://dpfan.net/wp-content/uploads/LungInfection-Train.zip"]
    obtain(dataset, tmp_path, progress=False)
    assert len(fetched) == 1  # found, not fetched again


def test_download_that_holds_something_else(fetched, tmp_path):
    with pytest.raises(UserError, match="does not hold what was expected"):
        obtain(replace(REGISTRY["cncb_lesions"]), tmp_path, progress=False)


def test_set_for_sign_up_is_explained(tmp_path, capsys):
    with pytest.raises(UserError, match="mosmed: no such folder; fetch the set by hand"):
        obtain(REGISTRY["mosmed"], tmp_path)
    told = capsys.readouterr().out
    assert "https://mosmed.ai/datasets/covid19_1110/" in told and "sign-up" in told
    assert "CC BY-NC-ND 3.0" in told and "study_0255" in told and f"{tmp_path / 'mosmed'}\n" in told


def test_wrong_folder_is_named(tmp_path):
    (tmp_path / "mosmed").mkdir()
    with pytest.raises(UserError, match="mosmed: does not look like mosmed"):
        obtain(REGISTRY["mosmed"], tmp_path)


def test_root_itself_is_the_set_only_where_allowed(tmp_path):
    (tmp_path / "doctor").mkdir()
    dataset = replace(REGISTRY["covid_semiseg"], files=())
    assert obtain(dataset, tmp_path, root_is_set=True) == tmp_path
    with pytest.raises(UserError, match="no such folder"):
        obtain(dataset, tmp_path)


def test_arrange_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"0 folders match unpacked/\*\*/Doctor-label/Imgs"):
        arrange(REGISTRY["covid_semiseg"], tmp_path)


def test_table_lists_every_set_once():
    lines = table(REGISTRY).splitlines()
    assert [line.split()[0] for line in lines[1:]] == sorted(REGISTRY)
    assert "not confirmed" in instructions(REGISTRY["covid_ct"], "data")

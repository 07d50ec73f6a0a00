"""Shards in, shards out: the same keys, masks and provenance; whatever interrupts it, the same files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.composition.shards import Composites, made_by
from bundles.lung_two_stage.enhancement.enhance import BLOCK, Enhancement, model_facts
from common.data.intensity import WINDOWS
from common.errors import UserError
from tests.bundles.lung_two_stage.made_work import write_composites
from tests.bundles.runs import fingerprints

FACTS = {"sha256": "abc", "iteration": 7, "metrics": {"fid": 1.0}}


def brighter(images: Tensor, network: nn.Module) -> Tensor:
    """70 HU more."""
    return images + 0.1


def enhancement(composites: Path, output: Path, apply: Callable = brighter, **facts: Any) -> Enhancement:
    everything = {**FACTS, **facts}
    return Enhancement(composites, output, nn.Identity(), apply, WINDOWS["lung"], everything)


@pytest.fixture(scope="module")
def composites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_composites(tmp_path_factory.mktemp("composites"), BLOCK + 5, BLOCK + 2)


def test_only_the_image_changes_and_the_record_says_by_what(composites: Path, tmp_path: Path) -> None:
    enhancement(composites, tmp_path / "out").run()
    before, after = Composites(composites), Composites(tmp_path / "out")
    assert len(after) == BLOCK + 5 and after.categories == before.categories
    assert after.description["enhancer"] == FACTS
    assert [(e.name, e.first, e.count) for e in after.entries] == [
        (e.name, e.first, e.count) for e in before.entries
    ]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.mask, new.mask)
        added = {**made_by().marks, "enhancer": {"sha256": "abc", "iteration": 7}}
        assert new.record == {**old.record, **added} and new.record["synthetic"] is True
        inside = (old.image > -1000) & (old.image < 330)
        assert set((new.image - old.image)[inside].tolist()) == {70}


def test_a_killed_run_goes_on_and_gives_the_same_files(composites: Path, tmp_path: Path) -> None:
    enhancement(composites, tmp_path / "straight").run()
    calls = []

    def failing(images: Tensor, network: nn.Module) -> Tensor:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return brighter(images, network)

    with pytest.raises(KeyboardInterrupt):
        enhancement(composites, tmp_path / "killed", failing).run()
    assert calls == [BLOCK, 2, 3] and not (tmp_path / "killed" / "manifest.jsonl").exists()
    enhancement(composites, tmp_path / "killed", failing).run()
    assert calls[3:] == [3]  # the first shard is not made again
    files = [list(fingerprints(tmp_path / name).values()) for name in ("straight", "killed")]
    assert files[0] == files[1]


def test_processes_share_the_shards(
    composites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "bundles.lung_two_stage.enhancement.enhance.distributed"
    monkeypatch.setattr(f"{place}.ranks", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(f"{place}.rank", lambda rank=rank: rank)
        enhancement(composites, tmp_path / "two").run()
        written = {path.name for path in (tmp_path / "two").glob("*.tar")}
        assert written == {"000000.tar", "000001.tar"} if rank else written == {"000000.tar"}


def test_shards_of_two_models_are_not_mixed(composites: Path, tmp_path: Path) -> None:
    enhancement(composites, tmp_path).run()
    with pytest.raises(UserError, match=r"composites\.json: shards of another enhancer"):
        enhancement(composites, tmp_path, sha256="other").run()
    with pytest.raises(UserError, match="holds the composites themselves"):
        enhancement(composites, composites)


def test_the_facts_are_the_files_hash_and_what_stands_beside_it(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    facts = model_facts(tmp_path / "model.pt", {"iteration": 3, "metrics": {"fid": 2.0}, "image_size": 1})
    assert len(facts.pop("sha256")) == 64 and facts == {"iteration": 3, "metrics": {"fid": 2.0}}

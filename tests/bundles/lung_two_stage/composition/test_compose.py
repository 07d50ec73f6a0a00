"""Whole sets: killed and resumed, by one process or several, with room on the disk or not."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles.lung_two_stage.composition import compose as composing
from bundles.lung_two_stage.composition.compose import ComposeSettings, bytes_needed, compose
from bundles.lung_two_stage.composition.render import Renderer
from bundles.lung_two_stage.composition.shards import DESCRIPTION, Composites, Member, ShardSet
from common.errors import UserError
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.composition.made import healthy_slices, nodules, settings
from tests.bundles.runs import ROOT, fingerprints, forked


def files(folder: Path) -> dict[str, str]:
    """What a set consists of, by name."""
    return {str(Path(path).relative_to(folder)): mark for path, mark in fingerprints(folder).items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set made without interruption; the banks beside it."""
    folder = tmp_path_factory.mktemp("straight")
    compose(settings(folder))
    return folder


def again(straight: Path, tmp_path: Path) -> ComposeSettings:
    """The same set in another place."""
    return settings(straight, output_dir=str(tmp_path / "out"))


def _killed_after(asked: ComposeSettings, images: int) -> None:
    """In a child: composes until it has rendered that many images, then gets SIGKILL."""
    rendered = Renderer.member
    left = iter(range(images))

    def counting(*arguments: object) -> Member:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return rendered(*arguments)  # type: ignore[arg-type]

    Renderer.member = counting  # type: ignore[assignment]
    compose(asked)


def _one_of_two(asked: ComposeSettings, rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    compose(asked)


def test_a_set_that_was_blended_another_way_is_not_gone_on_with(straight: Path, tmp_path: Path) -> None:
    """Sets of before have no such entry: their nodules are smaller than their masks."""
    shutil.copytree(straight / "out", tmp_path / "out")
    path = tmp_path / "out" / DESCRIPTION
    description = json.loads(path.read_text())
    del description["asked"]["blending"]
    path.write_text(json.dumps(description))
    with pytest.raises(
        UserError, match=r"holds composites with other blending .*choose another --output_dir"
    ):
        compose(again(straight, tmp_path))


def test_a_set_is_what_was_asked_for(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = Composites(straight / "out")
    assert len(read) == 60 and [entry.count for entry in read.entries] == [17, 17, 17, 9]
    assert read.image_size == (32, 32) and read.categories == ["part_solid", "solid"]
    records = [one.record for one in read]
    assert [record["composite"] for record in records] == list(range(60))
    assert len({record["index"] for record in records}) == 60
    least = min(record["distance_mm"] for record in records)
    assert least > 0 and all(one.mask.any() for one in read)
    compose(settings(straight))  # nothing is left to do
    out = capsys.readouterr().out
    assert "60 of 120 combinations kept" in out and "60 composites in 4 shards" in out and "take" not in out


def test_killed_twice_and_resumed_it_is_the_same(straight: Path, tmp_path: Path) -> None:
    asked = again(straight, tmp_path)
    out = asked.folder
    for images, whole in ((16 + 25, {"000000.tar"}), (16 + 30, {"000000.tar", "000001.tar"})):
        # 16 images tell the size; then shards of 17
        child = multiprocessing.get_context("fork").Process(target=_killed_after, args=(asked, images))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert {path.name for path in out.glob("[0-9]*.tar")} == whole and not (
            out / "manifest.jsonl"
        ).exists()
        assert list(out.glob(".[0-9]*.tar"))  # a half-written one
    compose(asked)
    assert files(out) == files(straight / "out")


def test_a_kill_between_a_shard_and_its_entry_costs_that_shard(straight: Path, tmp_path: Path) -> None:
    out = again(straight, tmp_path).folder
    shutil.copytree(straight / "out", out)
    (out / "manifest.jsonl").unlink()
    compose(again(straight, tmp_path))
    assert files(out) == files(straight / "out")


def test_a_lost_and_a_cut_shard_are_written_again(straight: Path, tmp_path: Path) -> None:
    out = again(straight, tmp_path).folder
    shutil.copytree(straight / "out", out)
    (out / "000001.tar").unlink()
    (out / "000003.tar").write_bytes(b"cut")
    (out / "plan.npy").unlink()
    compose(again(straight, tmp_path))
    assert files(out) == files(straight / "out")


def test_two_processes_make_the_files_of_one(straight: Path, tmp_path: Path) -> None:
    asked, fork = again(straight, tmp_path), multiprocessing.get_context("fork")
    port = 20000 + os.getpid() % 20000
    children = [fork.Process(target=_one_of_two, args=(asked, rank, port)) for rank in (0, 1)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert files(asked.folder) == files(straight / "out")


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, write = again(straight, tmp_path), ShardSet.write

    def full(shards: ShardSet, shard: int, samples: object) -> object:
        if shard == 2:
            raise UserError(f"{shards.folder}/000002.tar: the disk is full; free some space and run again")
        return write(shards, shard, samples)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ShardSet, "write", full)
        with pytest.raises(UserError, match=r"000002\.tar: the disk is full"):
            compose(asked)
    assert {path.name for path in asked.folder.glob("[0-9]*.tar")} == {"000000.tar", "000001.tar"}
    compose(asked)
    assert files(asked.folder) == files(straight / "out")


def test_what_does_not_fit_on_the_disk_is_refused_before(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(composing.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 10**5))
    with pytest.raises(UserError, match=r"60 composites of 32 x 32 as npy in 4 shards take .* GB; .*lower"):
        compose(again(straight, tmp_path))
    assert "GB free" in capsys.readouterr().out and not list(tmp_path.glob("out/[0-9]*.tar"))


def test_the_space_told_first_is_what_it_takes(straight: Path) -> None:
    asked = settings(straight)
    taken = sum(path.stat().st_size for path in asked.folder.glob("[0-9]*.tar"))
    shards = ShardSet(asked.folder, 60, 17)
    assert bytes_needed(asked, shards, range(4)) == pytest.approx(taken, rel=0.08)  # records: 2 or 3 blocks


def test_another_set_in_the_folder_is_refused(straight: Path) -> None:
    with pytest.raises(UserError, match=r"other seed \(0, not 1\); choose another --output_dir"):
        compose(settings(straight, seed=1))
    with pytest.raises(UserError, match=r"other format \(npy, not png\)"):
        compose(settings(straight, file_format="png"))


def test_other_nodules_under_the_same_name_are_noticed(straight: Path, tmp_path: Path) -> None:
    nodules().save(tmp_path / "nodules")
    healthy_slices().save(tmp_path / "healthy_slices")
    compose(settings(tmp_path, count=5))
    nodules(count=4).save(tmp_path / "nodules")
    with pytest.raises(UserError, match="holds composites with other nodules; choose another"):
        compose(settings(tmp_path, count=5))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"nodules_dir": "nowhere"}, "nowhere: no bank of nodules here"),
        ({"healthy_slices_dir": "nowhere"}, "nowhere: no bank of slices here"),
        ({"presence_file": "nowhere.npz"}, r"nowhere\.npz: no presence map here"),
        ({"categories_file": "nowhere.json"}, r"nowhere\.json: cannot be read"),
        ({"count": 121}, "count 121: only 120 of 120 combinations can be made"),
    ],
)
def test_bad_sources_are_one_line(straight: Path, tmp_path: Path, more: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(settings(straight, output_dir=str(tmp_path / "out"), **more))
    assert not list(tmp_path.glob("out/[0-9]*.tar"))


def test_the_presence_decides_where(straight: Path, tmp_path: Path) -> None:
    density = np.zeros((2, 4, 4))
    density[1, 1, 1:3] = 1.0  # the left lung, towards the front
    np.savez(tmp_path / "map.npz", density=density, metadata=np.array("{}"))
    presence = str(tmp_path / "map.npz")
    asked = settings(straight, output_dir=str(tmp_path / "out"), presence_file=presence, nodules_per_group=1)
    compose(asked)
    positions = [one.record["nodules"][0] for one in Composites(asked.folder)]
    assert all(position["column"] >= 16 and position["row"] < 18 for position in positions)


def test_masks_take_their_numbers_from_the_extraction(straight: Path, tmp_path: Path) -> None:
    (tmp_path / "extraction.json").write_text(json.dumps({"categories": ["solid", "part_solid"]}))
    order = str(tmp_path / "extraction.json")
    asked = settings(straight, output_dir=str(tmp_path / "out"), categories_file=order, count=9)
    compose(asked)
    read = Composites(asked.folder)
    assert read.categories == ["solid", "part_solid"]
    for _, mask, record in read:
        for nodule in record["nodules"]:
            assert read.categories[mask[nodule["row"], nodule["column"]] - 1] == nodule["category"]


def given(**more: Any) -> ComposeSettings:
    return ComposeSettings("nodules", "healthy_slices", "out", **more)


def test_digits_are_numbers_and_a_list_is_a_window() -> None:
    asked = given(count="12", groups="7", file_format="png", window=[-1000, 200])
    assert (asked.count, asked.groups) == (12, 7) and asked.window == (-1000, 200)
    assert asked == given(count=12, groups=7, file_format="png", window=(-1000, 200)) and hash(asked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"count": 0}, "count 0: give a whole number of at least 1"),
        ({"per_shard": "many"}, "per_shard many: give a whole number"),
        ({"nodules_per_group": 99}, "nodules_per_group 99: give at most 16"),
        ({"file_format": "jpg"}, "format 'jpg' is unknown"),
        ({"file_format": "png", "window": "lnug"}, "window 'lnug' is unknown"),
        ({"window": "lung"}, "leave the window out"),
    ],
)
def test_wrong_ones_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        given(**more)


def script(folder: Path) -> subprocess.Popen[bytes]:
    """Starts the script with two workers on the banks of ``made.settings``; its output: ``script.log``."""
    line = [sys.executable, str(ROOT / "scripts" / "synthesize.py"), "--workers", "2"]
    line += ["--nodules", str(folder / "nodules"), "--healthy_slices", str(folder / "healthy_slices")]
    line += ["--output", str(folder / "by_script"), "--groups", "400", "--count", "480", "--per_shard", "9"]
    with (folder / "script.log").open("ab") as log:
        return subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def large_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 480 in 54 shards; the banks beside it."""
    folder = tmp_path_factory.mktemp("commands")
    compose(settings(folder, groups=400, count=480, per_shard=9))
    return folder


@pytest.mark.slow
def test_the_config_makes_the_same_set(large_set: Path, tmp_path: Path) -> None:
    overrides = {
        **{name: large_set / name.removesuffix("_dir") for name in ("nodules_dir", "healthy_slices_dir")},
        **{"presence_file": "null", "categories_file": "null", "output_dir": tmp_path / "out"},
        **{"groups": 400, "count": 480, "per_shard": 9},
    }
    run = forked(CASE.arguments("composition", "compose", **overrides), tmp_path / "log")
    assert run.code == 0, run.err
    assert files(tmp_path / "out") == files(large_set / "out")
    wrong = forked(CASE.arguments("composition", "compose", **overrides, seed=9), tmp_path / "log")
    assert "holds composites with other seed (0, not 9)" in wrong.error


@pytest.mark.slow
def test_killed_twice_at_random_times_with_its_workers_and_resumed(large_set: Path, tmp_path: Path) -> None:
    """Of one process: see above."""
    for name in ("nodules", "healthy_slices"):
        (tmp_path / name).symlink_to(large_set / name)
    out, draw = tmp_path / "by_script", random.Random()
    for _ in range(2):
        finished = len(list(out.glob("[0-9]*.tar"))) if out.exists() else 0
        process = script(tmp_path)
        while process.poll() is None and len(list(out.glob("[0-9]*.tar"))) <= finished:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = script(tmp_path)
    assert last.wait(300) == 0, (tmp_path / "script.log").read_text()
    assert files(out) == files(large_set / "out")
    assert len(list(Composites(out))) == 480

"""Stamps change with the files, fingerprints with settings, configs and inputs."""

from __future__ import annotations

import os
from pathlib import Path

from bundles.lung_two_stage.pipeline.currency import Record, fingerprint, stamp


def test_a_stamp_changes_with_names_sizes_and_times(tmp_path: Path) -> None:
    seen = {stamp(tmp_path)}
    assert stamp(tmp_path / "missing") in seen
    file = tmp_path / "sub" / "a.txt"
    file.parent.mkdir()
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    seen.add(stamp(tmp_path))
    file.write_text("four")
    os.utime(file, ns=(1, 1))
    seen.add(stamp(tmp_path))
    os.utime(file, ns=(1, 2))
    seen.add(stamp(tmp_path))
    file.rename(tmp_path / "b.txt")
    seen.add(stamp(tmp_path))
    assert len(seen) == 5
    assert stamp(tmp_path) in seen


def test_a_fingerprint_changes_with_each_of_its_parts(tmp_path: Path) -> None:
    config, folder = tmp_path / "a.yaml", tmp_path / "in"
    config.write_text("seed: 0")
    folder.mkdir()
    first = fingerprint({"seed": 0}, [config], [folder])
    assert fingerprint({"seed": 0}, [config], [folder]) == first
    assert fingerprint({"seed": 1}, [config], [folder]) != first
    (folder / "file").write_text("x")
    second = fingerprint({"seed": 0}, [config], [folder])
    config.write_text("seed: 5")
    assert len({first, second, fingerprint({"seed": 0}, [config], [folder])}) == 3


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "records" / "a.json"
    assert Record.load(path) is None
    Record("f", "w", 1.5).save(path)
    assert Record.load(path) == Record("f", "w", 1.5)

"""The benchmark harness and its command line."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest

from common.errors import UserError
from scripts import bench
from tests.bench import harness
from tests.bench.harness import Result, alternate, extra_megabytes


def test_measurements_are_taken_in_turns_and_medians_compared() -> None:
    order: list[str] = []
    ours, baseline = iter([1.0, 2, 9, 3, 4]), iter([10.0, 60, 20, 30, 40])
    medians = alternate(
        lambda: (order.append("o"), next(ours))[1], lambda: (order.append("b"), next(baseline))[1], n=5
    )
    assert medians == (3, 30)
    assert "".join(order) == "ob" * 5
    with pytest.raises(ValueError, match="at least 5"):
        alternate(lambda: 1.0, lambda: 1.0, n=3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
def test_memory_counts_from_the_prepared_state() -> None:
    work = functools.partial(os.urandom, 50_000_000)
    assert extra_megabytes(functools.partial(functools.partial, work)) == pytest.approx(50, abs=5)


def test_the_command_line_writes_every_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {
        "good": lambda: Result("good", 2.0, 1.5, 1.0, 2.0, "s", 5),
        "poor": lambda: Result("poor", 1.0, 1.5, 2.0, 2.0, "s", 7),
    }
    monkeypatch.setattr(bench, "load_benchmarks", lambda: None)
    monkeypatch.setattr(bench, "BENCHMARKS", made)
    bench.main(["--output", str(tmp_path / "bench.json")])
    written = json.loads((tmp_path / "bench.json").read_text())
    assert list(written[0]) == ["name", "ratio", "goal", "ours", "baseline", "unit", "n"]
    assert [entry["n"] for entry in written] == [5, 7]
    table = capsys.readouterr().out.splitlines()
    assert "met" in table[1]
    assert "MISSED" in table[2]
    with pytest.raises(UserError, match="good, poor"):
        bench.main(["--only", "other"])


def test_all_benchmarks_are_found() -> None:
    bench.load_benchmarks()
    assert {"fid_accumulator_memory", "slice_store", "slice_store_memory"} <= set(harness.BENCHMARKS)

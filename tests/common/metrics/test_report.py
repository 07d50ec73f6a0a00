from __future__ import annotations

from typing import Any

from common.metrics.report import metrics_table, number


def result() -> dict[str, Any]:
    def entry(value: float | None, better: str, baseline: float) -> dict[str, Any]:
        beside = {"mean_image": {"mean": baseline, "interval": [0, 1], "n": 9}}
        return {"mean": value, "interval": [1.0, 20.5], "n": 9, "better": better, "baselines": beside}

    metrics = {"fid_randvgg": entry(12.3456, "lower", 234.5), "ssim": entry(0.28, "higher", 0.3)}
    return {"extractor": "randvgg", "leading": ["fid_randvgg"], "metrics": metrics}


def test_table_shows_every_number_in_its_column() -> None:
    lines = metrics_table(result()).splitlines()
    assert lines[0].split() == ["metric", "model", "[95", "%", "interval]", "mean-image", "n"]
    assert lines[2].split()[:6] == ["fid_randvgg", "*", "12.35", "[1.000,", "20.50]", "234.5"]
    assert lines[2].endswith("9  lower is better") and lines[3].endswith("9  higher is better")
    assert lines[2].index("234.5") + 5 == lines[3].index("0.300") + 5 == lines[0].index("mean-image") + 10


def test_numbers() -> None:
    assert [number(v) for v in (None, 0.0, -0.01234, 12.3456, -1234.56)] == [
        "-",
        "0.000",
        "-0.012",
        "12.35",
        "-1234.6",
    ]


def test_an_empty_result_is_a_header() -> None:
    assert metrics_table({"leading": [], "metrics": {}}).startswith("metric")

from __future__ import annotations

from typing import Any

from common.metrics.tables import format_number, metrics_table, structures_table


def result() -> dict[str, Any]:
    def entry(value: float | None, better: str, baseline: float) -> dict[str, Any]:
        beside = {"mean_image": {"mean": baseline, "interval": [0, 1], "n": 9}}
        found = {"mean": value, "interval": [1.0, 20.5], "n": 9, "patients": 12}
        return {**found, "better": better, "baselines": beside}

    metrics = {"fid_randvgg": entry(12.3456, "lower", 234.5), "ssim": entry(0.28, "higher", 0.3)}
    return {"extractor": "randvgg", "leading": ["fid_randvgg"], "metrics": metrics}


def test_table_shows_every_number_in_its_column() -> None:
    lines = metrics_table(result()).splitlines()
    assert lines[0].split() == ["metric", "model", "[95", "%", "interval]", "mean-image", "n", "patients"]
    assert lines[2].split()[:8] == ["fid_randvgg", "*", "12.35", "[1.000,", "20.50]", "234.5", "9", "12"]
    assert lines[2].endswith("12  lower is better") and lines[3].endswith("12  higher is better")
    assert len(lines) == 4 and metrics_table({"leading": [], "metrics": {}}).startswith("metric")
    assert [format_number(value) for value in (0.0, -0.01234, 12.3456)] == ["0.000", "-0.012", "12.35"]
    assert lines[2].index("234.5") + 5 == lines[3].index("0.300") + 5 == lines[0].index("mean-image") + 10


def test_few_patients_have_a_line_and_no_interval_a_dash() -> None:
    few = result()
    few["metrics"]["ssim"] |= {"patients": 2, "interval": None}
    *_, row, warning = metrics_table(few).splitlines()
    assert row.split()[:6] == ["ssim", "0.280", "[-]", "0.300", "9", "2"]
    assert warning.startswith("warning: only 2 patients: no intervals")


def test_structures_are_a_line_each_with_the_baselines_in_brackets() -> None:
    def entry(value: float | None, better: str, n: int = 9) -> dict[str, Any]:
        beside = {name: {"mean": mean} for name, mean in (("mean_image", 3.5), ("nearest_mask", 0.25))}
        return {"mean": value, "interval": [0, 1], "n": n, "better": better, "baselines": beside}

    def structure(value: float | None, n: int) -> dict[str, Any]:
        return {
            "fid_x": entry(value, "lower"),
            "mse": entry(value, "lower", n),
            "contrast_error": entry(7, "lower"),
        }

    lines = structures_table({"LV": structure(12.5, 40), "Ao": structure(None, 0)}).splitlines()
    assert lines[0].split() == ["structure", "fid_x", "lower", "mse", "lower", "n"]
    assert lines[2].split() == ["LV", "12.50", "(0.250,", "3.500)", "12.50", "(0.250,", "3.500)", "40"]
    assert lines[3].split()[1] == "-" and lines[3].split()[-1] == "0"
    assert lines[4].startswith("model (nearest-mask, mean-image)")

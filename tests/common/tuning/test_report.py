"""The table and the overlay of a search."""

from __future__ import annotations

from pathlib import Path

import yaml
from monai.bundle import ConfigParser

from common.config.checks import check_config
from common.paths import repository_root
from common.tuning.report import table, write_overlay

TRAIN = repository_root() / "bundles" / "pix2pix_covid" / "configs" / "train.yaml"
VALUES = {"learning_rate": 0.0001, "batch_size": 4, "lambda_l1": 1e2, "weight_decay": 1e-05}


def test_table_marks_the_best_and_names_what_failed() -> None:
    rows = [
        (0, "", 41.25, {"rate": 0.1}),
        (1, "diverged", None, {"rate": 0.25}),
        (12, "", 9.0, {"rate": 1e-5}),
    ]
    assert table(rows, best=12).splitlines() == [
        "trial  score   rate",
        "    0  41.25    0.1",
        "    1      -   0.25  diverged",
        "   12      9  1e-05  * best",
    ]
    assert table([]) == "trial  score"


def test_overlay_holds_numbers_that_yaml_reads_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    write_overlay(path, VALUES, ["first", "second"])
    text = path.read_text()
    assert text.startswith("# first\n# second\nlearning_rate: 0.0001\n") and "weight_decay: 1.0e-05\n" in text
    read = yaml.safe_load(text)
    assert read == VALUES and [type(value) for value in read.values()] == [float, int, float, float]
    assert [file.name for file in tmp_path.iterdir()] == ["tuned.yaml"]


def test_overlay_passes_the_check_that_runs_begin_with(tmp_path: Path) -> None:
    write_overlay(tmp_path / "tuned.yaml", VALUES, [])
    parser = ConfigParser()
    parser.read_config([str(TRAIN), str(tmp_path / "tuned.yaml")])
    parser.parse()
    check_config(parser, ["training", "seed"])
    assert parser.get_parsed_content("weight_decay") == 1e-05

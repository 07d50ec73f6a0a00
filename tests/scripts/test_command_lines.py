"""Command lines of the scripts: words become settings, wrong ones are refused in one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundles.lung_two_stage.composition.compose import ComposeSettings
from common.errors import UserError
from common.files import read_json
from common.paths import repository_root
from common.tools.runs import Sweep
from common.tools.tune import SearchSettings
from tests.bundles.case import override_words
from tests.bundles.pix2pix_covid.case import CASE as PIX2PIX
from tests.bundles.runs import forked

BAD_INPUT = {"trust_report": 2}  # 3 is its answer that the release gate is closed; 1 elsewhere
SCRIPTS = [path.stem for path in sorted((repository_root() / "scripts").glob("*.py"))]
NEEDED = "--nodules A --healthy_slices B --output C"


def parse(script: str, words: str) -> Any:
    """What the script's ``parse`` makes of a line."""
    return import_module(f"scripts.{script}").parse(words.split())


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_an_example_from_any_folder(tmp_path: Path, script: str) -> None:
    done = forked(["--help"], tmp_path.with_name("log"), tmp_path, script=script)
    assert done.code == 0, done.err
    assert done.out.startswith("usage: ") and "--debug" in done.out
    assert "Example" in done.out and f"python scripts/{script}.py" in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_errors_are_one_line_and_a_traceback_only_on_demand(tmp_path: Path, script: str) -> None:
    plain = forked(["--nonesuch"], tmp_path / "log", tmp_path, script=script)
    assert plain.code == BAD_INPUT.get(script, 1)
    assert plain.err.startswith("error: ") and len(plain.err.splitlines()) == 1, plain.err
    traced = forked(["--nonesuch", "--debug"], tmp_path / "log", tmp_path, script=script)
    assert traced.code == plain.code and "Traceback" in traced.err


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        (
            "latent_explorer",
            "--bundle bundles/dcgan_covid --output x.html --plane_seeds 4,8,15 --plane_path=linear",
            (
                Path("bundles/dcgan_covid"),
                {"output": "x.html", "plane_seeds": "4,8,15", "plane_path": "linear"},
            ),
        ),
        (
            "sweep",
            "patchgan_cardiac labels LV LV,Myo all --output_dir out --dataset_dir D --max_epochs=3",
            Sweep(
                *("patchgan_cardiac", "labels", ["LV", "LV,Myo", "all"], Path("out")),
                config_files=[],
                overrides={"dataset_dir": "D", "max_epochs": "3"},
            ),
        ),
        (
            "synthesize",
            f"{NEEDED} --count 1000000 --format png --window -1000 200 --workers 2 --seed 5 --presence P",
            ComposeSettings(
                *("A", "B", "C", "P"),
                **{"count": 1_000_000, "file_format": "png", "window": (-1000, 200)},
                **{"seed": 5, "num_workers": 2},
            ),
        ),
        ("synthesize", NEEDED, ComposeSettings("A", "B", "C")),
        (
            "tune",
            "pix2pix_covid --trials 4 --dataset_dir ../data --cpu_minutes 2 --trial 5 --seed=3",
            SearchSettings(
                *("pix2pix_covid", 4, 3, None, None),
                {"dataset_dir": "../data", "trial": "5", "cpu_minutes": 2.0},
            ),
        ),
        (
            "tune",
            "pix2pix_covid --max_epochs 2 --output_dir out --config_file a.yaml b.yaml",
            SearchSettings(
                *("pix2pix_covid", 12, 0, Path("out"), [Path("a.yaml"), Path("b.yaml")]),
                {"max_epochs": 2},
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_options_become_settings_and_others_overrides(script: str, words: str, expected: Any) -> None:
    assert parse(script, words) == expected


def test_the_ladders_window_is_a_name_or_two_numbers() -> None:
    words = "--real a --output b.png --window"
    assert parse("distortion_ladder", f"{words} -1000 400").window == ["-1000", "400"]
    assert parse("distortion_ladder", f"{words} lung").window == ["lung"]


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("latent_explorer", "--output x.html", "required: --bundle; see --help"),
        ("latent_explorer", "--bundle b", "required: --output; see --help"),
        ("latent_explorer", "--bundle b --output x.html --thumbnail", "--thumbnail: needs a value"),
        ("latent_explorer", "--bundle b --output x.html more", "'more' belongs to no option"),
        ("sweep", "patchgan_cardiac labels --output_dir out", "required: VALUE; see --help"),
        ("sweep", "patchgan_cardiac labels LV", "required: --output_dir; see --help"),
        ("sweep", "patchgan_cardiac labels LV --output_dir out --labels RV", "--labels: set by the sweep"),
        (
            "sweep",
            "patchgan_cardiac labels LV --output_dir out --resume true",
            "--resume: not an option here",
        ),
        ("synthesize", "--nodules A --healthy_slices B", "required: --output"),
        ("synthesize", f"{NEEDED} --count many", "count many: give a whole number of at least 1"),
        ("synthesize", f"{NEEDED} --format png --window 1 2 3", "--window 1 2 3: give one name or two"),
        ("synthesize", f"{NEEDED} --colour red", "unrecognized arguments: --colour red; see --help"),
        ("tune", "", "required: NAME; see --help"),
        ("tune", "pix2pix_covid --trials many", "invalid int value: 'many'; see --help"),
        ("tune", "pix2pix_covid --trials 0", "--trials 0: must be above 0"),
        ("tune", "pix2pix_covid --cpu_minutes -1", "--cpu_minutes: -1.0 is not a number above 0"),
        ("tune", "pix2pix_covid --seed -1", "--seed: -1 is not a whole number from 0 up"),
        ("tune", "pix2pix_covid dcgan", "'dcgan' belongs to no option"),
    ],
)
def test_wrong_words_are_refused(script: str, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        parse(script, words)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_real_trial_of_a_search_then_another(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    PIX2PIX.make_data(tmp_path / "pairs")
    tiny = {key: value for key, value in PIX2PIX.tiny.items() if "interval" not in key}
    settings = {**tiny, "output_dir": "out", "dataset_dir": "pairs", "max_epochs": 1}
    tables = []
    for trials in (1, 2):
        words = ["pix2pix_covid", *override_words({**settings, "trials": trials})]
        done = forked(words, tmp_path / "log", tmp_path, script="tune")
        assert done.code == 0, done.err
        tables.append([line.split() for line in done.out.splitlines()])
    assert tables[0][0][:5] == ["trial", "score", "learning_rate", "lambda_l1", "weight_decay"]
    assert tables[0][2][2:] == ["0.0002", "10.0", "0.0", "*", "best"]
    assert tables[1][2][:5] == tables[0][2][:5]
    folders = sorted((tmp_path / "out").glob("trial_*"))
    records = [read_json(folder / "models" / "model.json") for folder in folders]
    assert [record["epoch"] for record in records] == [1, 1]
    assert records[0]["score"] != records[1]["score"]  # other settings reached the training
    tuned = yaml.safe_load((tmp_path / "out" / "tuned.yaml").read_text())
    assert str(tuned["learning_rate"]) == next(row for row in tables[1] if row[-1] == "best")[2]

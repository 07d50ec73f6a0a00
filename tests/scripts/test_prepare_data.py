import re
import runpy
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.splits import read_splits
from common.errors import UserError
from common.paths import repository_root
from tests.bundles.runs import forked

SCRIPT = repository_root() / "scripts" / "prepare_data.py"
LESIONS = repository_root().parent / "shared" / "data" / "covid_lesions"


def run(*arguments, cwd):
    log = cwd.with_name(f"{cwd.name}_log")
    return forked([str(word) for word in arguments], log, cwd, script=SCRIPT.stem, SYNTHESIS_DEBUG="")


def make_set(folder, patients=4):
    rng = np.random.default_rng(0)
    for patient in range(1, patients + 1):
        for number in range(2):
            name = f"Data-1_coronacases_org_{patient:03d}_{number}"
            mask = np.zeros((20, 30), np.uint8)
            mask[5:9, 5:9] = 200
            write(Path(folder, "pseudo", "images", f"{name}.jpg"), rng.integers(0, 255, (20, 30)))
            write(Path(folder, "pseudo", "masks", f"{name}.png"), mask)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def prepare(*arguments):
    """The command line in this process."""
    runpy.run_path(str(SCRIPT))["main"]([str(argument) for argument in arguments])


def test_unpacked_set_as_root_from_any_folder(tmp_path, monkeypatch, capsys):
    make_set(tmp_path / "lesions")
    monkeypatch.chdir(tmp_path)
    prepare("covid_semiseg", "--root", "lesions", "--output", "out", "--image_size", 16)
    printed = capsys.readouterr().out
    assert "covid_semiseg: found in lesions" in printed and "4 train, 2 val, 2 test" in printed
    table = read_splits(tmp_path / "out" / "splits.json")
    assert sorted(chain(*table.values())) == [f"coronacases-{patient}" for patient in range(1, 5)]
    assert len(list((tmp_path / "out" / "images").iterdir())) == 8


def test_the_users_pattern_tells_the_patients(tmp_path, monkeypatch):
    make_set(tmp_path / "lesions", patients=12)
    monkeypatch.chdir(tmp_path)
    words = ("covid_semiseg", "--root", "lesions", "--output", "out", "--image_size", 16)
    with pytest.raises(UserError, match=r"^out: 2 patients cannot be split"):  # 00x and 01x
        prepare(*words, "--patient_pattern", r".*_org_0(\d)")
    prepare(*words, "--patient_pattern", r".*_org_(\d+)")
    table = read_splits(tmp_path / "out" / "splits.json")
    assert sorted(chain(*table.values())) == [f"covid-semiseg-{patient:03d}" for patient in range(1, 13)]


def test_errors_are_one_line(tmp_path):
    result = run("mosmed", "--root", ".", cwd=tmp_path)
    assert result.error.startswith("mosmed: no such folder; download the set by hand as described")
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mosmedd", "--root", "."], "mosmedd: no such data set; the nearest known name is 'mosmed'"),
        (["mosmed", "--root", ".", "--window", "lungs"], "window 'lungs' is unknown"),
        (["mosmed", "--root", ".", "--window", "1", "x"], "--window 1 x: give one name"),
        (["mosmed", "--root", ".", "--image_size", "0"], "--image_size: 0 is not a whole number from 1 up"),
        (["mosmed", "--root", ".", "--output", "."], "exists already"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        prepare(*arguments)


def test_list_and_help(capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main(["--list"])
    assert "covid19_ct_seg" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "Example:" in capsys.readouterr().out


def test_nothing_to_do_is_a_usage_error():
    with pytest.raises(UserError, match="give at least one NAME and --root, or --list"):
        prepare()


@pytest.mark.realdata
@pytest.mark.slow
def test_shared_lesion_slices(tmp_path):
    if not LESIONS.is_dir():
        pytest.skip(f"{LESIONS} is missing")
    output = tmp_path / "out"
    result = run("covid_semiseg", "--root", LESIONS, "--output", output, "--image_size", 32, cwd=tmp_path)
    assert result.code == 0, result.err
    table = read_splits(tmp_path / "out" / "splits.json")
    assert len(table["train"]) + len(table["val"]) + len(table["test"]) == 18  # 20 scans of 18 persons
    dropped = int(result.out.split()[-2])  # lesions too small to be seen at 32 pixels
    assert 0 < dropped < 100 and len(list((output / "images").iterdir())) == 850 - dropped


def test_the_offset_reaches_the_reader(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    asked = []
    main.__globals__["source"] = lambda *_: None
    main.__globals__["harmonise"] = lambda _sources, _output, settings: asked.append(settings) or {}
    for words in ([], ["--hu_offset", "-1024"]):
        main(["mosmed", "--root", str(tmp_path), *words])
    assert [settings.hu_offset for settings in asked] == [None, -1024.0]

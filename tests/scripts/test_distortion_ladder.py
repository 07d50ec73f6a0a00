"""The command line of the distortion ladder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.rng import make_rng
from scripts.distortion_ladder import main


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(12):
        values = make_rng(0, "slices", number).integers(0, 255, (4, 4)).astype(np.uint8)
        Image.fromarray(values).resize((32, 32)).save(folder / f"a{number // 2}-p1-{number % 2}.png")
    return folder


def test_picture_and_numbers(slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, numbers = tmp_path / "ladder.png", tmp_path / "ladder.json"
    line = f"--real {slices} --output {output} --json {numbers} --extractor randvgg --image_size 32"
    main([*line.split(), "--images", "10", "--repeats", "3", "--patient_pattern", r"(a\d)"])
    found = json.loads(numbers.read_text())
    assert (found["images"], found["patients"], found["image_size"]) == (10, 6, 32)
    entry = found["extractors"][0]
    assert entry["extractor"] == "randvgg" and len(entry["kid"]) == 14
    label = "sees layout" if entry["sees_layout"] else "blind to layout"
    assert f"randvgg: {label}; real against real {entry['real_real']['mean']:.4f}" in capsys.readouterr().out
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--extractor vgg", "extractor 'vgg' is unknown"),
        ("--images 0", "--images and --repeats: give numbers of 1 or more"),
        ("--images 4 --example 4", "--example 4: give one of 0 to 3"),
        ("--window brain9", "brain9"),
        ("--window -1000 x", "--window -1000 x: give one name or two numbers"),
    ],
)
def test_wrong_words_are_refused(slices: Path, tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([*f"--real {slices} --output {tmp_path / 'l.png'} --extractor randvgg".split(), *words.split()])
    assert not (tmp_path / "l.png").exists()

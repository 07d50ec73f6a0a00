"""The command line of the latent explorer."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from scripts.latent_explorer import parse


def test_named_options_and_others_become_settings() -> None:
    words = "--bundle bundles/dcgan_covid --output x.html --plane_seeds 4,8,15 --plane_path=linear"
    expected = {"output": "x.html", "plane_seeds": "4,8,15", "plane_path": "linear"}
    assert parse(words.split()) == (Path("bundles/dcgan_covid"), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--output x.html", "required: --bundle; see --help"),
        ("--bundle b", "required: --output; see --help"),
        ("--bundle b --output x.html --thumbnail", "--thumbnail: needs a value"),
        ("--bundle b --output x.html more", "'more' belongs to no option"),
    ],
)
def test_wrong_words_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(words.split())


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert "python scripts/latent_explorer.py --bundle bundles/dcgan_covid --output explorer.html" in shown
    assert "--num_real 0 leaves them out" in shown

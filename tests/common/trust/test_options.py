from __future__ import annotations

from pathlib import Path

import pytest

from common.data.intensity import Window
from common.errors import UserError
from common.training.in_memory import Budget
from common.trust import gathering
from common.trust.options import Options
from common.trust.settings import ReadingSettings

PLACES = {"bundle": Path("bundle"), "real": Path("real"), "output": Path("report.html")}


def test_the_one_segmenter_that_judges_learns_five_times_as_long() -> None:
    options = Options(**PLACES, budget=Budget(300, 8, 1e-3))
    assert (options.judge.iterations, options.judge.batch_size) == (1500, 8)
    assert options.budget.iterations == 300


def test_sections_and_releases_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="sections looks: choose of fidelity"):
        Options(**PLACES, sections=["looks"])
    with pytest.raises(UserError, match="take privacy into --sections"):
        Options(**PLACES, sections=["fidelity"], release=Path("out"))
    with pytest.raises(UserError, match="give with --synthetic a folder"):
        Options(**PLACES, release=Path("out"), generate=3)


def test_without_a_bundle_the_caller_says_how_images_are_read_and_who_is_held_out() -> None:
    places = {"real": Path("real"), "output": Path("report.html")}
    kept = Options(**places, heldout=Path("others"), window=Window(-900, 100), image_size=64)
    assert kept.bundle is None and kept.window == Window(-900, 100)
    with pytest.raises(UserError, match="give those it has not seen with --heldout"):
        Options(**places)
    with pytest.raises(UserError, match="--generate needs the bundle"):
        Options(**places, heldout=Path("others"), generate=3)
    with pytest.raises(UserError, match="--ckpt_path needs the bundle"):
        Options(**places, heldout=Path("others"), ckpt_path=Path("model.pt"))
    with pytest.raises(UserError, match="--window: the bundle's model says how images are read"):
        Options(**PLACES, window=Window(-900, 100))


def test_the_offset_reaches_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def read(_folder: Path, settings: ReadingSettings) -> None:
        raise Asked(settings.hu_offset)

    monkeypatch.setattr(gathering, "read_set", read)
    with pytest.raises(Asked, match="-1024"):
        gathering.gather(Options(**PLACES, hu_offset=-1024), tmp_path / "model.pt", tmp_path)

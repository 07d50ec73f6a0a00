from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.training.in_memory import Budget
from common.trust import gathering
from common.trust.options import Options
from common.trust.settings import ReadingSettings

PLACES = (Path("bundle"), Path("real"), Path("report.html"))


def test_the_one_segmenter_that_judges_learns_five_times_as_long() -> None:
    options = Options(*PLACES, budget=Budget(300, 8, 1e-3))
    assert (options.judge.iterations, options.judge.batch_size) == (1500, 8)
    assert options.budget.iterations == 300


def test_sections_and_releases_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="sections looks: choose of fidelity"):
        Options(*PLACES, sections=["looks"])
    with pytest.raises(UserError, match="take privacy into --sections"):
        Options(*PLACES, sections=["fidelity"], release=Path("out"))
    with pytest.raises(UserError, match="give with --synthetic a folder"):
        Options(*PLACES, release=Path("out"), generate=3)


def test_the_offset_reaches_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def read(_folder: Path, settings: ReadingSettings) -> None:
        raise Asked(settings.hu_offset)

    monkeypatch.setattr(gathering, "read_set", read)
    with pytest.raises(Asked, match="-1024"):
        gathering.gather(Options(*PLACES, hu_offset=-1024), tmp_path / "model.pt", tmp_path)

"""The lock of a search's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.tuning.lock import locked


def test_second_search_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked(folder), pytest.raises(UserError, match="still running there"), locked(folder):
        pass
    with locked(folder):
        pass


def test_trial_left_by_a_killed_search_keeps_the_lock_until_it_ends(tmp_path: Path) -> None:
    with locked(tmp_path) as descriptor:
        trial = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    with pytest.raises(UserError, match="a training that a killed one left"), locked(tmp_path):
        pass
    trial.communicate(b"\n")
    with locked(tmp_path):
        pass

from __future__ import annotations

from pathlib import Path

import pytest

from common.handlers.table import IterationTable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "losses.csv"


def filled(path: Path, iterations: int) -> IterationTable:
    table = IterationTable(path)
    table.open(0)
    for iteration in range(1, iterations + 1):
        table.append(iteration, 1, {"loss": 1 / iteration})
    table.flush()
    return table


def test_floats_are_read_back_exactly(path: Path) -> None:
    filled(path, 3).close()
    assert path.read_text() == "iteration,epoch,loss\n1,1,1.0\n2,1,0.5\n3,1,0.3333333333333333\n"


def test_a_late_name_gets_a_column(path: Path) -> None:
    table = filled(path, 1)
    table.append(2, 1, {"loss": 0.5, "convergence": 0.25})
    table.append(3, 2, {"convergence": 0.125})
    table.close()
    assert path.read_text() == "iteration,epoch,loss,convergence\n1,1,1.0,\n2,1,0.5,0.25\n3,2,,0.125\n"


def test_going_on_takes_later_rows_out(path: Path) -> None:
    filled(path, 5).close()
    table = IterationTable(path)
    table.open(2)
    table.append(3, 7, {"loss": 9.0})
    table.close()
    assert path.read_text() == "iteration,epoch,loss\n1,1,1.0\n2,1,0.5\n3,7,9.0\n"


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_row_cut_off_by_a_kill_goes(path: Path, cut: int) -> None:
    filled(path, 4).close()
    path.write_text(path.read_text()[: -len("4,1,0.25\n")] + "4,1,0.2500000"[:-cut])
    IterationTable(path).open(9)
    assert path.read_text().splitlines()[-1] == "3,1,0.3333333333333333"


def test_a_fresh_start_drops_the_rows_of_an_earlier_run(path: Path) -> None:
    filled(path, 4).close()
    IterationTable(path).open(0)
    assert path.read_text() == "iteration,epoch,loss\n"


def test_nothing_is_written_before_the_first_row(path: Path) -> None:
    IterationTable(path).open(0)
    assert not path.exists()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.metrics.curves import convergence_plot, moving_average, read_log


def test_a_log_becomes_a_picture_with_a_row_a_loss(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i // 10},{1 / (i + 1)},{'' if i % 2 else 0.5}" for i in range(60))
    log = tmp_path / "losses.csv"
    log.write_text(f"iteration,epoch,G_l1,D_accuracy_real\n{rows}\n")
    convergence_plot(log, tmp_path / "eval" / "two.png")
    log.write_text("iteration,epoch,G_l1\n1,0,0.5\n")
    convergence_plot(log, tmp_path / "one.png")
    with Image.open(tmp_path / "eval" / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.size[0] == one.size[0] and two.size[1] > 1.5 * one.size[1]


def test_cells_without_numbers_are_nan(tmp_path: Path) -> None:
    log = tmp_path / "losses.csv"
    log.write_text("iteration,loss,other\n3,0.5,\n4,nan,x\n5,2.5\n")
    columns = read_log(log)
    np.testing.assert_array_equal(columns["iteration"], [3, 4, 5])
    np.testing.assert_array_equal(columns["loss"], [0.5, np.nan, 2.5])
    assert np.isnan(columns["other"]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no training log; train first"),
        ("", "not a training log"),
        ("a,b\n1,2\n", "not a training log"),
        ("iteration,epoch,loss\n1,0,\n", "holds no losses"),
    ],
)
def test_bad_logs_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    log = tmp_path / "losses.csv"
    if text is not None:
        log.write_text(text)
    with pytest.raises(UserError, match=f"losses.csv: {message}"):
        convergence_plot(log, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_moving_average_by_hand() -> None:
    assert moving_average(np.array([4.0, 0.0, 1.0]), 0.5) == pytest.approx([4, (1 + 0) / 0.75, 1 / 0.875])

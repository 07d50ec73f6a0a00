from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common.errors import UserError
from common.metrics.curves import convergence_plot, drawn_names, moving_average, read_log


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


def test_losses_come_first_and_averages_go_with_what_they_average() -> None:
    names = ["D_adversarial", "D_accuracy_real", "D_accuracy_fake", "D_loss", "G_l1", "G_loss"]
    averages = ["D_accuracy_real_ema", "D_accuracy_fake_ema", "lonely_ema"]
    columns = {name: np.ones(3) for name in ["iteration", "epoch", *names, *averages]}
    columns["empty"] = np.full(3, np.nan)
    assert drawn_names(columns) == [
        *("G_loss", "D_loss", "D_accuracy_real", "D_accuracy_fake"),
        *("D_adversarial", "G_l1", "lonely_ema"),
    ]


def test_the_logged_average_is_drawn_over_the_raw_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, list[float]]] = []

    def remember(figure: Figure, *_: Any, **__: Any) -> None:
        for axis in figure.axes:
            lines.extend((axis.get_title(loc="left"), list(line.get_ydata())) for line in axis.lines)

    log = tmp_path / "losses.csv"
    log.write_text(
        "iteration,epoch,D_accuracy_fake,G_loss,D_accuracy_fake_ema\n"
        "1,1,0.25,3.0,0.25\n2,1,0.75,,0.35\n3,1,0.5,1.0,0.38\n"
    )
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", lambda figure, path, **_: (remember(figure), path.touch()))
        convergence_plot(log, tmp_path / "plot.png")
    assert lines == [
        ("G_loss", [3.0, 1.0]),
        ("D_accuracy_fake, bold: moving average", [0.25, 0.75, 0.5]),
        ("D_accuracy_fake, bold: moving average", [0.25, 0.35, 0.38]),
    ]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.metrics.curves import read_log
from common.metrics.epoch_curves import epoch_means, epoch_plot


def log(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "losses.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_means_are_those_of_each_epochs_iterations(tmp_path: Path) -> None:
    rows = ("1,1,4.0,", "2,1,2.0,0.5", "3,2,1.0,", "4,3,7.0,0.25", "5,3,,0.75")
    means = epoch_means(read_log(log(tmp_path, "iteration,epoch,G_loss,black_share", *rows)))
    assert list(means) == ["epoch", "G_loss", "black_share"]
    assert means["epoch"].tolist() == [1, 2, 3] and means["G_loss"].tolist() == [3, 1, 7]
    np.testing.assert_array_equal(means["black_share"], [0.5, np.nan, 0.5])


def test_the_picture_has_a_second_part_for_accuracies(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    epoch_plot(log(tmp_path, "iteration,epoch,G_loss,D_loss", "1,1,4.0,1.0", "2,2,2.0,1.2"), one)
    header = "iteration,epoch,G_loss,D_loss,D_accuracy_real,D_accuracy_fake"
    epoch_plot(log(tmp_path, header, "1,1,4.0,1.0,0.5,0.9", "2,2,2.0,1.2,0.6,0.8"), two)
    with Image.open(one) as short, Image.open(two) as tall:
        assert short.height > 300 and tall.height > 1.5 * short.height


@pytest.mark.parametrize("header", ["iteration,G_loss", "iteration,epoch,val"])
def test_a_log_without_epochs_or_losses_is_refused(tmp_path: Path, header: str) -> None:
    row = ",".join(["1"] * len(header.split(",")))
    with pytest.raises(UserError, match="train first"):
        epoch_plot(log(tmp_path, header, row), tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()

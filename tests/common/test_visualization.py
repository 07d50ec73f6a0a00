from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from common.errors import UserError
from common.provenance import Provenance
from common.visualization import (
    CAPTION,
    DIMMED,
    FRAME_MS,
    GAP,
    HEADER,
    HELD_MS,
    LEGEND,
    PALETTE,
    PAPER,
    class_picture,
    colour,
    convergence_plot,
    drawn_names,
    epoch_means,
    epoch_plot,
    grey_levels,
    label_picture,
    moving_average,
    panel_rows,
    read_log,
    save_animation,
    save_panel,
    save_strip,
    save_structure_panel,
    structure_rows,
    typical_slice,
)


def test_masks_are_grey_levels_by_channel() -> None:
    label = torch.zeros(1, 4, 1, 4)
    for channel in range(3):
        label[0, channel, 0, channel] = 1
    assert label_picture(label).flatten().tolist() == [0.25, 0.5, 0.75, 0.0]


def test_class_maps_are_coloured_on_black() -> None:
    picture = label_picture(torch.tensor([[[[0.0, 2.0, 1.0]]]]))
    assert picture.shape == (1, 3, 1, 3)
    found = picture[0, :, 0].T.mul(255).round().tolist()
    assert found == [[0, 0, 0], list(PALETTE[1]), list(PALETTE[0])]


def test_condition_images_go_from_black_to_white() -> None:
    picture = label_picture(torch.tensor([[[[-1.0, 0.0, 1.0]]]]))
    assert picture.shape == (1, 1, 1, 3) and picture.flatten().tolist() == [0, 0.5, 1]


def test_one_class_is_pointed_out() -> None:
    picture = class_picture(torch.tensor([[[[0.0, 1.0, 2.0]]]]), chosen=2)[0, :, 0].T * 255
    assert picture[1].tolist() == pytest.approx([DIMMED * level for level in colour(1)])
    assert picture[2].tolist() == pytest.approx(colour(2)) and picture[0].sum() == 0


def test_classes_beyond_the_palette_go_round() -> None:
    assert colour(len(PALETTE) + 1) == colour(1) and len(set(PALETTE)) == len(PALETTE)


def test_colours_differ_in_brightness_too() -> None:
    """Chambers that touch can be told apart on a grey print: LV, RV, LA, RA, Myo, Ao, PA in this order."""
    grey = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in PALETTE[:7]]
    touching = [(0, 4), (0, 1), (0, 2), (1, 3), (2, 3), (5, 6)]
    assert min(abs(grey[a] - grey[b]) for a, b in touching) > 20


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_columns_hold_mask_generated_real_and_scaled_difference(tmp_path: Path) -> None:
    masks = torch.zeros(2, 1, 40, 80)
    masks[1, 0, :20] = 1
    generated, real = torch.full((2, 1, 40, 80), -1.0), torch.zeros(2, 1, 40, 80)
    real[1] = -0.5
    save_panel(tmp_path / "eval" / "panel.png", masks, generated, real, ["one", "two"])
    sheet = read(tmp_path / "eval" / "panel.png")
    height, width = 80, 160  # enlarged twice
    assert sheet.shape == (HEADER + 2 * (height + CAPTION) + GAP, 4 * (width + GAP) + GAP)
    rows = [HEADER + row * (height + CAPTION) for row in (0, 1)]
    columns = [GAP + column * (width + GAP) for column in range(4)]
    top = [[int(sheet[row + 5, column + 5]) for column in columns] for row in rows]
    # differences of 0.5 and 0.25 of the window: the larger is white, the other half as bright
    assert top == [[0, 0, 128, 255], [255, 0, 64, 128]]
    assert sheet[rows[1] + 75, columns[0] + 5] == 0
    assert (sheet[:HEADER] < 128).any() and (sheet[rows[0] + height : rows[1]] < 128).any()


def test_long_names_and_equal_images_do_no_harm(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 16, 16)
    save_panel(tmp_path / "panel.png", images, images, images, ["x" * 500])
    assert read(tmp_path / "panel.png").shape[1] == 4 * (160 + GAP) + GAP


def test_class_maps_have_their_colours_and_a_legend(tmp_path: Path) -> None:
    labels = torch.zeros(1, 1, 160, 160)
    labels[0, 0, :80], labels[0, 0, 80:, :80] = 1, 3
    save_panel(tmp_path / "panel.png", labels, labels * 0, labels * 0, ["heart"], ["LV", "RV", "LA"])
    sheet = read(tmp_path / "panel.png")
    assert sheet.shape == (HEADER + 160 + CAPTION + GAP + LEGEND, 4 * (160 + GAP) + GAP, 3)
    places = [(5, 5), (85, 5), (85, 85)]
    found = [tuple(int(v) for v in sheet[HEADER + row, GAP + column]) for row, column in places]
    assert found == [colour(1), colour(3), (0, 0, 0)]
    bottom = {tuple(int(v) for v in pixel) for pixel in sheet[-LEGEND:].reshape(-1, 3)}
    assert {colour(1), colour(2), colour(3)} <= bottom


def test_condition_images_are_shown_as_they_are(tmp_path: Path) -> None:
    image = torch.full((1, 1, 160, 160), -0.5)
    save_panel(tmp_path / "panel.png", image, image, image, ["native"], ["LV", "RV"])
    sheet = read(tmp_path / "panel.png")
    assert sheet.ndim == 2 and sheet[HEADER + 5, GAP + 5] == 64


def test_a_row_a_structure_with_the_others_dimmed(tmp_path: Path) -> None:
    labels = torch.zeros(3, 1, 160, 160)
    labels[1, 0, :80], labels[1, 0, 80:] = 1, 2
    generated, real = torch.full_like(labels, -1.0), torch.zeros_like(labels)
    real[1] = 1
    names = ["a", "b", "c"]
    save_structure_panel(tmp_path / "panel.png", labels, generated, real, names, ["LV", "Ao", "PA"])
    sheet = read(tmp_path / "panel.png")
    tops = [HEADER + row * (160 + CAPTION) for row in range(3)]  # LV, Ao, all; no slice has a PA
    assert sheet.shape[0] == tops[2] + 160 + CAPTION + GAP + LEGEND
    upper = [sheet[top + 5, GAP + 5].tolist() for top in tops]
    lower = [sheet[top + 155, GAP + 5].tolist() for top in tops]
    assert upper[0] == upper[2] == list(colour(1)) and lower[1] == lower[2] == list(colour(2))
    assert upper[1] == pytest.approx([DIMMED * level for level in colour(1)], abs=1)
    assert sheet[tops[0] + 5, GAP + 2 * (160 + GAP) + 5].tolist() == [255] * 3


def test_without_structures_there_is_no_structure_panel(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 16, 16)
    save_structure_panel(tmp_path / "panel.png", images, images, images, ["a"], ["LV"])
    assert not (tmp_path / "panel.png").exists()


def squares(*areas: int, value: float = 1) -> torch.Tensor:
    """A slice of 32 x 32 for each area."""
    labels = torch.zeros(len(areas), 1, 32, 32)
    for label, area in zip(labels, areas, strict=True):
        label.view(-1)[:area] = value
    return labels


def test_panel_rows_go_from_the_largest_lesion_to_the_smallest() -> None:
    labels = torch.zeros(5, 1, 4, 4)
    for row, pixels in enumerate((2, 5, 0, 5, 9)):
        labels[row, 0].view(-1)[:pixels] = 1
    assert panel_rows(labels, 8) == [4, 1, 3, 0, 2]
    assert panel_rows(labels, 3) == [4, 3, 2]
    assert panel_rows(labels, 1) == [4]


def test_classes_count_by_their_pixels_and_images_by_their_order() -> None:
    assert panel_rows(torch.cat([squares(4, value=1), squares(3, value=7)]), 1) == [0]
    assert panel_rows(squares(4, 900, 7, value=-0.5), 3) == [0, 1, 2]


def test_a_typical_slice_is_the_median_of_the_larger_half() -> None:
    assert typical_slice(squares(0, 1, 2, 3, 4, 9, 6, 7, 8, 0)) == 8  # of 9, 8, 7, 6 the upper median
    assert typical_slice(squares(5, 9)) == 1
    assert typical_slice(squares(0, 0)) is None


def test_each_structure_has_its_slice_and_all_together_come_last() -> None:
    labels = squares(9, 50, 0, 0) + squares(0, 0, 300, 90, value=3)
    assert structure_rows(labels, 3) == [(1, 1), (3, 2), (0, 2)]
    assert structure_rows(labels.clamp_max(1), 1) == [(1, 2)]


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


def ramps(count: int, side: int = 16) -> torch.Tensor:
    """Images that differ: (count, 1, side, side) in [-1, 1]."""
    levels = torch.linspace(-1, 1, side * side).reshape(1, 1, side, side)
    return torch.cat([levels * (number + 1) / count for number in range(count)])


def test_an_animation_holds_every_frame_in_all_its_grey_levels(tmp_path: Path) -> None:
    images = ramps(5)
    save_animation(tmp_path / "a.gif", images)
    with Image.open(tmp_path / "a.gif") as file:
        assert file.n_frames == 5 and file.info["loop"] == 0
        times, frames = [], []
        for number in range(5):
            file.seek(number)
            times.append(file.info["duration"])
            frames.append(np.asarray(file.convert("L")))
    np.testing.assert_array_equal(np.stack(frames), grey_levels(images))
    assert times == [HELD_MS, FRAME_MS, FRAME_MS, FRAME_MS, HELD_MS]
    assert len(np.unique(frames[4])) == 256


def test_a_strip_shows_the_images_in_order_in_even_rows(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 6).reshape(6, 1, 1, 1).expand(6, 1, 160, 160)
    save_strip(tmp_path / "s.png", images, [str(number) for number in range(6)], columns=4)
    with Image.open(tmp_path / "s.png") as file:
        pixels = np.asarray(file)
    height = HEADER + 160 + CAPTION + GAP
    assert pixels.shape == (2 * height, 3 * (160 + GAP) + GAP)  # 3 + 3, not 4 + 2
    middles = pixels[HEADER + 80 :: height, GAP + 80 :: 160 + GAP]
    assert middles.tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (pixels[:HEADER] != PAPER).any(), "captions"


def test_strips_and_animations_say_that_they_are_synthetic(tmp_path: Path) -> None:
    made_by = Provenance("painter", seed=2)
    save_strip(tmp_path / "s.png", ramps(2), ["a", "b"], provenance=made_by)
    save_animation(tmp_path / "a.gif", ramps(2), made_by)
    with Image.open(tmp_path / "s.png") as strip, Image.open(tmp_path / "a.gif") as animation:
        assert strip.info["Description"] == "synthetic, painter"
        assert animation.info["comment"] == b"synthetic, painter"


def test_grey_levels_are_clipped_and_rounded() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0, 1 / 255]).reshape(1, 1, 2, 3)
    assert grey_levels(values).tolist() == [[[0, 0, 128], [255, 255, 128]]]

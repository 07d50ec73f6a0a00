from __future__ import annotations

import torch

from common.metrics.rows import panel_rows, structure_rows, typical_slice


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

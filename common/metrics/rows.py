"""Which slices of a test set its panels show: chosen by what they hold, never by how they turned out."""

from __future__ import annotations

import torch
from torch import Tensor

from common.metrics.labels import is_condition_image, structure_mask


def panel_rows(labels: Tensor, count: int) -> list[int]:
    """Positions of ``count`` slices spread evenly over the areas of their labels (N, C, H, W), largest first.

    Condition images have no areas: the slices are spread evenly over the set's order.
    """
    image = is_condition_image(labels)
    areas = torch.zeros(len(labels)) if image else (labels > 0.5).flatten(1).sum(1)
    order = areas.argsort(descending=True, stable=True)
    places = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(row) for row in order[places]]


def structure_rows(labels: Tensor, structures: int) -> list[tuple[int, int]]:
    """A typical slice for each structure and, where there are several, for all of them together.

    Args:
        labels: class indices (N, 1, H, W).
        structures: number of classes.
    Returns:
        (class index, position of the slice), 0 standing for all classes together, which come last; nothing
        for a structure that no slice has.
    """
    rows = {index: typical_slice(structure_mask(labels, index)) for index in range(1, structures + 1)}
    if structures > 1:
        rows[0] = typical_slice(labels > 0.5)
    return [(index, row) for index, row in rows.items() if row is not None]


def typical_slice(masks: Tensor) -> int | None:
    """The slice with the median area among the larger half of those that have any; None where none has.

    Of masks (N, 1, H, W). The largest is often an odd one, the small ones show little.
    """
    areas = masks.flatten(1).sum(1)
    having = int((areas > 0).sum())
    if not having:
        return None
    return int(areas.argsort(descending=True, stable=True)[(having - 1) // 4])

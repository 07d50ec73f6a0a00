from __future__ import annotations

import torch

from common.metrics.labels import class_count, is_condition_image, structure_mask


def test_kinds_of_labels_are_told_apart() -> None:
    mask, classes, image = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0]), torch.tensor([-0.9, 0.7])
    found = [(is_condition_image(labels), class_count(labels)) for labels in (mask, classes, image)]
    assert found == [(False, 1), (False, 3), (True, 1)]
    assert class_count(torch.zeros(0, 1, 4, 4)) == 0


def test_a_structure_needs_a_thousandth_of_the_slice() -> None:
    labels = torch.zeros(3, 1, 64, 32)  # 2 pixels are enough
    labels[0, 0, 5, 7:9] = 2
    labels[1, 0, 5, 7] = 2
    labels[2, 0, 40:, 7] = 1
    mask = structure_mask(labels, 2)
    assert mask.shape == labels.shape and mask.dtype == torch.bool
    assert mask.nonzero().tolist() == [[0, 0, 5, 7], [0, 0, 5, 8]]

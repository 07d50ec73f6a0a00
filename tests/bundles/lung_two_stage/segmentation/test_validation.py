from __future__ import annotations

import torch

from bundles.lung_two_stage.segmentation.validation import NoduleSensitivity, mask_and_truth


def test_sensitivity_counts_touched_nodules() -> None:
    true, found = torch.zeros(4, 1, 6, 6), torch.zeros(4, 1, 6, 6)
    true[:3, 0, 2:4, 2:4] = 1  # the fourth has none
    found[0, 0, 3, 3] = found[1, 0, 0, 0] = found[3, 0, 1, 1] = 1
    metric = NoduleSensitivity()
    metric.update((found[:2], true[:2]))
    metric.update((found[2:], true[2:]))
    assert metric.compute() == 1 / 3
    metric.reset()
    assert metric.compute() == 0


def test_masks_are_logits_above_zero() -> None:
    logits = torch.tensor([[[[-1.0, 0.0], [0.1, 3.0]]]])
    found, true = mask_and_truth({"pred": logits, "label": logits * 0 + 1, "image": logits})
    assert found.flatten().tolist() == [0, 0, 1, 1] and bool(true.all())

from __future__ import annotations

import torch

from common.inference.outputs import condition_as_prediction, prediction_target_condition
from common.inference.preparing import mask_to_image


def test_batched_and_decollated_outputs_give_the_same() -> None:
    batch = {name: torch.rand(3, 1, 4, 4) for name in ("pred", "label", "image")}
    items = [{name: value[row] for name, value in batch.items()} for row in range(3)]
    whole, parts = prediction_target_condition(batch), prediction_target_condition(items)
    for name, first, second in zip(("pred", "label", "image"), whole, parts, strict=True):
        assert torch.equal(first, batch[name]) and torch.equal(first, second)
    condition, target, _ = condition_as_prediction(items)
    assert torch.equal(condition, batch["image"]) and torch.equal(target, batch["label"])


def test_the_mask_is_the_input_and_the_image_the_target() -> None:
    batch = {"image": torch.rand(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4), "sample": torch.arange(2)}
    source, target = mask_to_image(batch, "cpu", non_blocking=True)
    assert target is not None
    assert torch.equal(source, batch["label"]) and torch.equal(target, batch["image"])
    assert mask_to_image({"label": batch["label"]}, torch.device("cpu"))[1] is None

"""From what MONAI's evaluators put out to what the metrics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def prediction_target_condition(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    """An ``output_transform`` for evaluators fed by `common.inference.preparing.mask_to_image`.

    Their output names the network's input "image" and its target "label".

    Returns:
        pred (B, 1, H, W), real image (B, 1, H, W), condition (B, C, H, W): batched, decollated or not.
    """
    keys = ("pred", "label", "image")
    if isinstance(output, Mapping):
        return tuple(output[key] for key in keys)
    return tuple(torch.stack([item[key] for item in output]) for key in keys)  # (B, C, H, W) each


def condition_as_prediction(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    """As `prediction_target_condition`, with the condition in the prediction's place.

    For conditions that are images: what a metric of the model's has to be held against.
    """
    _, target, condition = prediction_target_condition(output)
    return condition, target, condition

"""From what an evaluator puts out to what the metrics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from common.inference.outputs import prediction_target_condition


def first_channels(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the HU of generated and of real images, (B, 1, S, S) in [-1, 1] each."""
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, :1], real[:, :1]


def alphas(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the last channel of both, of nodules alpha: (B, 1, S, S) in [-1, 1] each."""
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, -1:], real[:, -1:]

"""What the enhancer's validation feeds the network, and what its metrics read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundles.lung_two_stage.enhancement.survival import NoduleDice, Segmenter
from common.inference.outputs import prediction_target_condition
from common.metrics.features import FeatureExtractor
from common.metrics.ignite_metrics import FrechetDistance, LesionFaithfulness

Output = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def composite_to_real(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: composites (B, 1, H, W) in; real slices and the composites' masks as target.

    The real slices are company, not truth: metrics may compare the sets, never image by image.
    """
    target = torch.cat([batch["image"], batch["mask"]], dim=1)  # (B, 2, H, W)
    return batch["label"].to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)


def parts(output: Output) -> dict[str, Tensor]:
    """``enhanced``, ``real``, ``composite`` and ``mask`` (B, 1, H, W) of an evaluator's output."""
    enhanced, target, composite = prediction_target_condition(output)
    return {"enhanced": enhanced, "real": target[:, :1], "composite": composite, "mask": target[:, 1:]}


def choose(*names: str) -> Callable[[Output], tuple[Tensor, ...]]:
    """An ``output_transform`` that gives these of the `parts`, in this order."""
    return lambda output: tuple(parts(output)[name] for name in names)


def before_and_after(
    extractor: FeatureExtractor, segmenter: Segmenter | None, device: torch.device | str
) -> dict[str, Any]:
    """The further metrics of a validation beside FID after the enhancement, by name.

    ``before_fid_...``: of the composites as they are. ``lesion_faithfulness``: how much of the nodules'
    contrast in the composites is left, 1 for all of it. ``before_dice`` and ``dice``: of the segmenter, where
    there is one.
    """
    found: dict[str, Any] = {
        f"before_fid_{extractor.name}": FrechetDistance(extractor, choose("composite", "real"), device),
        "lesion_faithfulness": LesionFaithfulness(choose("enhanced", "composite", "mask"), device),
    }
    if segmenter is not None:
        found["before_dice"] = NoduleDice(segmenter, choose("composite", "mask"), device)
        found["dice"] = NoduleDice(segmenter, choose("enhanced", "mask"), device)
    return found

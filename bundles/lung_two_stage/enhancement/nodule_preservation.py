"""Keeps enhanced nodules consistent with their masks: a loss term, and what validation measures."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window, window_by_name
from common.data.replay import Transform
from common.data.transforms import recorded_transforms
from common.inference.checkpoint import load_weights, model_info, network_for
from common.inference.prepare_batch import prediction_target_condition
from common.metrics.faithfulness import FEWEST_PIXELS, lesion_ring
from common.metrics.features import FeatureExtractor
from common.metrics.ignite_metrics import FrechetDistance, LesionFaithfulness, as_given
from common.metrics.segmentation import MeanDice, overlap_counts

Output = Mapping[str, Any] | Sequence[Mapping[str, Any]]
logger = logging.getLogger(__name__)


class NodulePreservation:
    """A loss: how much the enhancer changes nodules and their surroundings.

    The mean absolute difference between enhanced image and composite over the nodules grown by a margin, of
    gray values and (weighted) of their differences to the next pixel down and right, so that edges stay.
    Elsewhere the enhancer is free, except for the nodules' contrast: the darker half of a nodule and that of
    the ring around it, as in `common.metrics.faithfulness`, must change equally.

    Args:
        gradient: weight of the differences.
        margin: pixels around a nodule that belong to its region.
        contrast: weight of the absolute change of contrast, see `contrast_change`.

    Example:
        >>> composite, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
        >>> mask[..., 3:5, 3:5] = 1
        >>> float(NodulePreservation(gradient=0.0, margin=0)(composite + 0.5, composite, mask))
        0.5
    """

    def __init__(self, gradient: float = 1.0, margin: int = 2, contrast: float = 0.0) -> None:
        self.gradient, self.margin, self.contrast = float(gradient), int(margin), float(contrast)

    def __call__(self, enhanced: Tensor, composite: Tensor, mask: Tensor | None) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] and masks, above 0 in nodules -> scalar; 0 without nodules."""
        if mask is None:
            raise ValueError("the batch has no mask; nodules cannot be preserved")
        region = self.region(mask)
        change = (enhanced - composite).float()
        lost = _mean(change.abs(), region)
        if self.contrast:
            lost = lost + self.contrast * contrast_change(change, composite, mask)
        if not self.gradient:
            return lost
        down = _mean(change.diff(dim=2).abs(), region[:, :, 1:] * region[:, :, :-1])
        right = _mean(change.diff(dim=3).abs(), region[..., 1:] * region[..., :-1])
        return lost + self.gradient * (down + right)

    def region(self, mask: Tensor) -> Tensor:
        """The nodules grown by the margin: (B, 1, H, W) -> {0, 1}."""
        nodules = (mask > 0).float()
        if not self.margin:
            return nodules
        return max_pool2d(nodules, 2 * self.margin + 1, stride=1, padding=self.margin)


def contrast_change(change: Tensor, composite: Tensor, mask: Tensor) -> Tensor:
    """The absolute change of the nodules' contrast by a change (B, 1, H, W) of images, averaged over images.

    The composite decides which pixels are the darker halves. Images without a nodule count 0.
    """
    nodules = (mask > 0).any(1)
    changes = [
        (_darker(change[n, 0], composite[n, 0], inside) - _darker(change[n, 0], composite[n, 0], ring)).abs()
        for n, (inside, ring) in enumerate(zip(nodules, lesion_ring(nodules), strict=True))
        if min(int(inside.sum()), int(ring.sum())) >= FEWEST_PIXELS
    ]
    return torch.stack(changes).sum() / len(mask) if changes else change.sum() * 0.0


def _darker(values: Tensor, gray: Tensor, region: Tensor) -> Tensor:
    """The mean of ``values`` over the half of the pixels ``region`` that is darker in ``gray``."""
    order = gray[region].argsort()
    return values[region][order[: (len(order) + 1) // 2]].mean()


def _mean(values: Tensor, region: Tensor) -> Tensor:
    return (values * region).sum() / torch.clamp_min(region.sum(), 1.0)


class Segmenter(nn.Module):
    """A trained segmenter for images of another HU window than its own.

    Args:
        network: maps (B, 1, H, W) in [-1, 1] to logits of one channel (nodule above 0) or of several
            (background first).
        window: of the images.
        own: of the segmenter's training.
        preprocessing: of its training, in the place of the window; see
            `bundles.lung_two_stage.segmentation.inference.network_input`.
    """

    def __init__(
        self, network: nn.Module, window: Window, own: Window, preprocessing: Sequence[Transform] = ()
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.window, self.own, self.preprocessing = window, own, preprocessing
        self.scale = window.width / own.width
        self.shift = (window.lower + window.width / 2 - own.lower - own.width / 2) * 2 / own.width

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 1, H, W) in [-1, 1] to nodule masks (B, 1, H, W), bool."""
        inputs = (images * self.scale + self.shift).clamp(-1, 1)
        if self.preprocessing:
            hu = (images[:, 0].float().cpu().numpy() + 1) / 2 * self.window.width + self.window.lower
            inputs = network_input(hu, self.own, self.preprocessing).to(images.device)
        logits = self.network(inputs)
        return logits > 0 if logits.shape[1] == 1 else logits.argmax(1, keepdim=True) > 0


def load_segmenter(ckpt_path: str | os.PathLike[str], window: Window) -> Segmenter | None:
    """Loads the segmenter of stage 1 for images of ``window``; None, with a log line, where there is none.

    Raises:
        UserError: the model cannot be read, or is no network of this project.

    Example:
        >>> load_segmenter("no such model.pt", Window(-1000, 400)) is None
        True
    """
    if not Path(ckpt_path).is_file():
        logger.info(f"{ckpt_path}: no segmenter yet, Dice before and after the enhancement is left out")
        return None
    network = load_weights(network_for(ckpt_path, nn.Identity()), ckpt_path, "run the segmentation stage")
    info = model_info(ckpt_path)
    own = window_by_name(info.get("window_hu", window))
    return Segmenter(network, window, own, recorded_transforms(info))


class NoduleDice(MeanDice):
    """Dice of segmented nodules and true masks, pixels of all images together.

    Args:
        segmenter: maps images (B, 1, H, W) in [-1, 1] to bool (B, 1, H, W); moved to ``device``.
        output_transform: engine output -> (images, masks (B, 1, H, W)).
    """

    def __init__(
        self,
        segmenter: Segmenter,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.segmenter = segmenter.to(device)
        super().__init__(1, output_transform, device)

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """The sums of `overlap_counts`."""
        images, masks = batch
        predicted = self.segmenter(images.to(self._device)).cpu()
        return overlap_counts(predicted.float(), (masks.cpu() > 0).float(), 1)


def composite_to_real(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: composites (B, 1, H, W) as input, real slices and the composites' masks as target.

    Real slices are not paired with composites: metrics may compare the sets, never image by image.

    Example:
        >>> batch = {name: torch.zeros(2, 1, 8, 8) for name in ("label", "image", "mask")}
        >>> [part.shape[1] for part in composite_to_real(batch)]
        [1, 2]
    """
    target = torch.cat([batch["image"], batch["mask"]], dim=1)  # (B, 2, H, W)
    return batch["label"].to(device, non_blocking=non_blocking), target.to(device, non_blocking=non_blocking)


def parts(output: Output) -> dict[str, Tensor]:
    """``enhanced``, ``real``, ``composite`` and ``mask`` (B, 1, H, W) of an evaluator's output."""
    enhanced, target, composite = prediction_target_condition(output)
    return {"enhanced": enhanced, "real": target[:, :1], "composite": composite, "mask": target[:, 1:]}


def choose(*names: str) -> Callable[[Output], tuple[Tensor, ...]]:
    """An ``output_transform`` that selects some of the `parts`, in this order.

    Example:
        >>> output = {"pred": torch.ones(1, 1, 2, 2), "label": torch.zeros(1, 2, 2, 2)}
        >>> enhanced, real = choose("enhanced", "real")({**output, "image": output["pred"] / 2})
        >>> float(enhanced.mean()), float(real.mean())
        (1.0, 0.0)
    """
    return lambda output: tuple(parts(output)[name] for name in names)


def before_and_after(
    extractor: FeatureExtractor, segmenter: Segmenter | None, device: torch.device | str
) -> dict[str, Any]:
    """Additional metrics of a validation, by name.

    ``before_fid_...``: FID of the composites before enhancement. ``lesion_faithfulness``: share of the
    nodules' contrast that is left, 1 for all. ``before_dice`` and ``dice``: of a segmenter.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> sorted(before_and_after(RandomVGG(), None, "cpu"))
        ['before_fid_randvgg', 'lesion_faithfulness']
    """
    metrics: dict[str, Any] = {
        f"before_fid_{extractor.name}": FrechetDistance(extractor, choose("composite", "real"), device),
        "lesion_faithfulness": LesionFaithfulness(choose("enhanced", "composite", "mask"), device),
    }
    if segmenter is not None:
        metrics["before_dice"] = NoduleDice(segmenter, choose("composite", "mask"), device)
        metrics["dice"] = NoduleDice(segmenter, choose("enhanced", "mask"), device)
    return metrics

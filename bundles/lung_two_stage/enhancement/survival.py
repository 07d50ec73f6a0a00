"""Whether masks still tell the truth: what a segmenter finds before and after the enhancement."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.data.intensity import Window, window_by_name
from common.inference.models import load_weights, model_info, network_for
from common.metrics.dice import MeanDice, overlap_counts
from common.metrics.ignite_metrics import as_given, batched

logger = logging.getLogger(__name__)


class Segmenter(nn.Module):
    """A trained segmenter for images of another window than its own.

    Args:
        network: (B, 1, H, W) in [-1, 1] -> logits of one channel (nodule above 0) or several
            (background first).
        window: of the images that it is given.
        own: that it was trained with.
    """

    def __init__(self, network: nn.Module, window: Window, own: Window) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.scale = window.width / own.width
        self.shift = (window.lower + window.width / 2 - own.lower - own.width / 2) * 2 / own.width

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] -> where nodules are (B, 1, H, W), bool."""
        logits = self.network((images * self.scale + self.shift).clamp(-1, 1))
        return logits > 0 if logits.shape[1] == 1 else logits.argmax(1, keepdim=True) > 0


def load_segmenter(ckpt_path: str | os.PathLike[str], window: Window) -> Segmenter | None:
    """The first stage's segmenter for images of ``window``; None, said in one line, where it is not there.

    Raises:
        UserError: a model that is no network of this project or cannot be read.
    """
    if not Path(ckpt_path).is_file():
        logger.info(f"{ckpt_path}: no segmenter yet, Dice before and after the enhancement is left out")
        return None
    network = load_weights(network_for(ckpt_path, nn.Identity()), ckpt_path, "run the segmentation stage")
    own = window_by_name(model_info(ckpt_path).get("window_hu", window))
    return Segmenter(network, window, own)


class NoduleDice(MeanDice):
    """Dice of the nodules that a segmenter finds against the true masks, all images of a pass together.

    Args:
        segmenter: images (B, 1, H, W) in [-1, 1] -> bool (B, 1, H, W); moved to ``device``.
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

    def update(self, output: Any) -> None:
        """Adds a batch."""
        images, masks = (batched(item) for item in output[:2])
        found = self.segmenter(images.to(self._device)).cpu()
        self.counts += overlap_counts(found.float(), (masks.cpu() > 0).float(), 1)

"""A small classifier of nodule crops: what stands in for Inception in the inception score."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from bundles.lung_two_stage.banks import RECORDS
from common.errors import UserError
from common.inference.checkpoint import load_weights, model_info, network_for
from common.metrics.inception_score import Classifier
from common.metrics.pretrained import inception_at_hand, inception_classifier

HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file bundles/lung_two_stage/configs/train_classifier.yaml"
)


class CropClassifier(nn.Module):
    """Crops to classes: convolutions of stride 2, the mean over places, a linear layer.

    (B, 1, S, S) in [-1, 1] -> logits (B, K).

    Args:
        classes: K, at least 2.
        widths: channels of the convolutions.
        dropout: before the last layer.
    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, classes: int = 3, widths: Sequence[int] = (16, 32, 64), dropout: float = 0.2) -> None:
        super().__init__()
        if classes < 2:
            raise UserError(f"a classifier of {classes} classes: the bank must have at least 2")
        self.layers = nn.Sequential(
            *(
                Convolution(2, source, target, strides=2, act="relu", norm="batch", adn_ordering="NA")
                for source, target in pairwise([1, *widths])
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1], classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K)."""
        logits: Tensor = self.layers(images)
        return logits


class NoduleClassifier:
    """A trained `CropClassifier` as `common.metrics.inception_score.Classifier`.

    Its name says by what it tells nodules apart: ``nodule_category`` or ``nodule_diameter``.

    Args:
        ckpt_path: its model.
        device: where it works.
    Raises:
        UserError: no such model.
    """

    def __init__(self, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        self.info = model_info(ckpt_path)
        network = network_for(ckpt_path, otherwise=CropClassifier())
        self.network = load_weights(network, ckpt_path, HOW_TO_TRAIN).to(device)
        self.name = f"nodule_{self.info.get('classes_by', 'class')}"
        self.size = int(self.info.get("image_size", 32))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] -> probabilities (B, K); crops are resized to those it learned from."""
        if images.shape[-1] != self.size:
            images = nn.functional.interpolate(images.float(), (self.size, self.size), mode="bilinear")
        return torch.softmax(self.network(images.float()), dim=1)


def classifier_at_hand(
    ckpt_path: str | os.PathLike[str] | None, device: torch.device | str = "cpu"
) -> NoduleClassifier | None:
    """The trained classifier; None where nothing has been trained there."""
    if ckpt_path is None or not Path(ckpt_path).is_file():
        return None
    return NoduleClassifier(ckpt_path, device)


def image_and_class(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch``: ``image`` (B, 1, S, S) in, ``class`` (B,) as target."""
    image, target = (batch[name].to(device, non_blocking=non_blocking) for name in ("image", "class"))
    return image, target


def prediction_and_class(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: logits (B, K) and classes (B,)."""
    if isinstance(output, Mapping):
        return output["pred"], output["label"]
    logits, classes = (
        torch.stack([torch.as_tensor(item[key]) for item in output]) for key in ("pred", "label")
    )
    return logits.as_subclass(Tensor), classes.as_subclass(Tensor).flatten().long()


logger = logging.getLogger(__name__)


def classifiers_at_hand(
    classifier_path: str | os.PathLike[str] | None,
    inception_weights: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> list[Classifier]:
    """Inception where its weights are on this machine, and the classifier of nodules where one is trained.

    Nothing is downloaded. What is missing is said in one line.

    Args:
        classifier_path: the model of ``train_classifier.yaml``.
        inception_weights: a TorchScript file; None to look into torch's hub folder.
    Raises:
        UserError: a file that was named cannot be read.
    """
    found: list[Classifier] = []
    weights = inception_at_hand() if inception_weights is None else Path(inception_weights)
    if weights is not None:
        found.append(inception_classifier(weights).to(device))
    own = classifier_at_hand(classifier_path, device)
    if own is None:
        logger.warning("no inception score by a classifier of nodules: train one: %s", HOW_TO_TRAIN)
    else:
        found.append(own)
    return found


def held_out_bank(work_dir: str | os.PathLike[str], layer: str) -> str | None:
    """The extraction's nodules of test patients, where there are any; None of other layers."""
    bank = Path(work_dir) / "extraction" / "test_nodules"
    return str(bank) if layer == "nodules" and (bank / RECORDS).is_file() else None

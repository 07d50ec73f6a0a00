"""A small classifier of nodule crops, in the place of Inception in the inception score."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

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

logger = logging.getLogger(__name__)


class CropClassifier(nn.Module):
    """Maps crops (B, 1, S, S) in [-1, 1] to logits (B, K): strided convolutions, global mean, linear layer.

    Args:
        classes: K, at least 2.
        widths: channels of the convolutions.
        dropout: before the last layer.
    Raises:
        UserError: fewer than two classes.

    Example:
        >>> CropClassifier(classes=3)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
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
    """A trained `CropClassifier` as a `common.metrics.inception_score.Classifier`.

    Its name is that of its classes: ``nodule_category`` or ``nodule_diameter``.

    Args:
        ckpt_path: its model.
        device: where it runs.
    Raises:
        UserError: there is no model.
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


def available_classifiers(
    classifier_path: str | os.PathLike[str] | None,
    inception_weights: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> list[Classifier]:
    """Loads Inception where its weights are on this machine, and the nodule classifier where it is trained.

    Nothing is downloaded. A log line says what is missing.

    Args:
        classifier_path: the model of ``train_classifier.yaml``.
        inception_weights: a TorchScript file; None to look into torch's hub folder.
    Raises:
        UserError: a named file cannot be read.
    """
    classifiers: list[Classifier] = []
    weights = inception_at_hand() if inception_weights is None else Path(inception_weights)
    if weights is not None:
        classifiers.append(inception_classifier(weights).to(device))
    if classifier_path is not None and Path(classifier_path).is_file():
        classifiers.append(NoduleClassifier(classifier_path, device))
    else:
        logger.warning("no inception score by a classifier of nodules: train one: %s", HOW_TO_TRAIN)
    return classifiers


def held_out_bank(work_dir: str | os.PathLike[str], layer: str) -> str | None:
    """The extraction's nodules of test patients, where there are any; None for other layers."""
    bank = Path(work_dir) / "extraction" / "test_nodules"
    return str(bank) if layer == "nodules" and (bank / RECORDS).is_file() else None

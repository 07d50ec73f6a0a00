"""What is here to judge generated images by: classifiers, and banks of patients kept apart."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from bundles.lung_two_stage.banks import RECORDS
from bundles.lung_two_stage.generation.classifier import HOW_TO_TRAIN, classifier_at_hand
from common.metrics.inception_score import Classifier
from common.metrics.pretrained import inception_at_hand, inception_classifier

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

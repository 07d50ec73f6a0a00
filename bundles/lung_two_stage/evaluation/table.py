"""Table III: how close each method's slices come to real ones, how diverse and how certain they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.inference.models import load_weights, model_info, network_for
from common.metrics.bootstrap import Resamples, Value
from common.metrics.inception_score import class_probabilities, score_with_interval
from common.metrics.report import aligned, patients_warning, with_interval
from common.metrics.set_evaluation import SetEvaluator, better
from common.random import generator

REAL, BLURRED = "real_real", "blurred_real"
SHOWN = (
    *("fid_", "kid_", "excess_kid_", "precision", "recall", "density", "coverage", "pair_"),
    *("copies_by_features", "is_"),
)

logger = logging.getLogger(__name__)


class SliceClassifierScores(nn.Module):
    """A trained diagnosis as the classifier of an inception score, for slices of its own window.

    Args:
        network: (B, 1, H, W) in [-1, 1] -> logits (B, K).
        name: part of the score's.
    """

    def __init__(self, network: nn.Module, name: str = "diagnosis") -> None:
        super().__init__()
        self.network, self.name = network.eval(), name

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K)."""
        return torch.softmax(self.network(images), dim=1)


def load_classifier(path: str | os.PathLike[str]) -> SliceClassifierScores | None:
    """The diagnosis at ``path``; its number of classes becomes part of the score's name.

    None, said in one line, where there is none.

    Raises:
        UserError: the file cannot be read or is no network of this project.
    """
    if not Path(path).is_file():
        logger.info(f"{path}: no diagnosis yet, the inception score is left out")
        return None
    network = load_weights(network_for(path, nn.Identity()), path, "run training of train_diagnosis.yaml")
    classes = len(model_info(path).get("classes", []))
    return SliceClassifierScores(network, f"diagnosis_of_{classes}")


def compare(
    evaluator: SetEvaluator,
    sets: Mapping[str, Tensor],
    classifier: SliceClassifierScores | None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Every metric of every set (N, 1, H, W), of real slices in the place of generated ones and of the test
    slices, blurred.

    Sets are cut to equal numbers: nearly all of these metrics depend on it.

    Returns:
        Plain data: metric -> set -> value.
    """
    count = min(len(images) for images in sets.values())
    values = {name: _measured(evaluator, images[:count], classifier, seed) for name, images in sets.items()}
    found = evaluator.baselines(count)
    test, patients = evaluator.real.test, evaluator.real.patients
    for name, images in ((REAL, test), (BLURRED, evaluator.blurred[0])):
        certainty = _certainty(images, classifier, evaluator.count, seed, patients)
        values[name] = {**found[name].values, **certainty}
    names = [name for name in next(iter(values.values())) if name.startswith(SHOWN)]
    return {
        name: {
            "better": "higher" if name.startswith("is_") else better(name),
            **{method: found[name].plain() for method, found in values.items()},
        }
        for name in names
    }


def rows(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as text: a metric a line, a method a column."""
    methods = [name for name in next(iter(table.values())) if name != "better"]
    lines = [["metric", *methods, "better"]]
    for name, found in table.items():
        lines.append([name, *(with_interval(found[method]) for method in methods), found["better"]])
    plain = {f"{name} {method}": found[method] for name, found in table.items() for method in methods}
    return "\n".join([aligned(lines), *patients_warning(plain)])


def _measured(
    evaluator: SetEvaluator, images: Tensor, classifier: SliceClassifierScores | None, seed: int
) -> dict[str, Value]:
    return {**evaluator(images).values, **_certainty(images, classifier, evaluator.count, seed)}


def _certainty(
    images: Tensor,
    classifier: SliceClassifierScores | None,
    count: int,
    seed: int,
    patients: Sequence[str] | None = None,
) -> dict[str, Value]:
    if classifier is None:
        return {}
    resamples = Resamples.over(patients, len(images), count, generator(seed, "inception score"))
    probabilities = class_probabilities(classifier, images)
    return {f"is_{classifier.name}": score_with_interval(probabilities, resamples)}

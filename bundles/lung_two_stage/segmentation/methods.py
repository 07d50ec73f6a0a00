"""What Table I compares: methods that find nodules in a scan, whatever they are inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from common.data.nodule_scan import NoduleScan
from common.data.samples import Sample
from common.errors import UserError
from common.inference.models import model_info
from common.metrics.froc import Candidate

OWN_NAME = "this method"
TRUSTED = "bundles.lung_two_stage."
SEGMENTER = "bundles.lung_two_stage.segmentation.predicting.SegmentationMethod.from_model"


class Method(Protocol):
    """A trained method.

    Attributes:
        name: as the table shows it.
    """

    name: str

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Where it sees nodules: ``scan`` is the scan's name, ``position_mm`` in the frame of its nodules."""

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """The nodules' mask {0, 1} (Z, H, W) of the scan; None for a method that draws none."""


class EmptyMask:
    """The baseline that finds nothing anywhere."""

    name = "empty mask"

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """None at all."""
        return []

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8]:
        """0 everywhere."""
        return np.zeros(scan.hu.shape, np.uint8)


def load_method(name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Method:
    """A trained method from its model's file.

    The JSON beside the model says under ``method`` what makes the method: the dotted name of something of
    this bundle that is called as ``(name, ckpt_path, device)``. Without that entry it is a segmenter.

    Raises:
        UserError: no such model, or its JSON names something else.
    """
    target = str(model_info(ckpt_path).get("method", SEGMENTER))
    make = locate(target) if target.startswith(TRUSTED) else None
    if not callable(make):
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' is no method of this bundle; "
            "delete the entry"
        )
    return cast(Method, make(name, ckpt_path, device))


def named(models: Mapping[str, str] | None, ckpt_path: str | os.PathLike[str]) -> dict[str, str]:
    """The models' files by the names of the table: ``models``, or the one at ``ckpt_path``.

    Raises:
        UserError: ``models`` is no mapping.
    """
    if models is None:
        return {OWN_NAME: str(ckpt_path)}
    if not isinstance(models, Mapping):
        raise UserError(f"models {models!r}: give names and files, {{'U-Net': 'DIR/models/model.pt'}}")
    return {str(name): str(path) for name, path in models.items()}


def with_baselines(methods: Sequence[Method], seed: int = 0) -> list[Method]:
    """The methods, an untrained copy of the first that can make one, and the empty mask."""
    copies = [method.untrained(seed) for method in methods if hasattr(method, "untrained")]
    return [*methods, *copies[:1], EmptyMask()]


def refuse_seen(models: Mapping[str, str | os.PathLike[str]], records: Sequence[Sample]) -> None:
    """Checks that no model was trained, or chosen, on one of the patients.

    Raises:
        UserError: names one.
    """
    patients = {record.patient for record in records}
    for path in models.values():
        splits = model_info(path).get("splits", {})
        seen = {patient for name in ("train", "val") for patient in splits.get(name, [])} & patients
        if seen:
            raise UserError(
                f"{path}: was trained with patient {min(seen)}, one of those to evaluate on; "
                "give the data set and --split_seed of its training, or --heldout_dir"
            )

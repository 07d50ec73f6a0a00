"""A folder of masks (PNG slices, NIfTI slices or volumes) as a dataset of single slices."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.data.folders import files_by_stem
from common.data.layouts import expand, mask_file
from common.data.noise import noise_place
from common.data.reading import read_mask
from common.data.resizing import check_fit_name, fit_mask
from common.data.samples import ORIENTATIONS, Sample, stem
from common.data.volumes import open_volume
from common.errors import UserError

logger = logging.getLogger(__name__)


class MaskSlices(Dataset):
    """One item a slice: ``label`` (1, S, S) float32 {0, 1} and ``sample``, its place in ``samples``.

    All masks are read and checked here, before anything is generated.

    Args:
        input_dir: folder of masks; every volume becomes its axial slices.
        image_size: S, the size that the generator was trained at.
        orientation: ``auto`` knows COVID-SemiSeg's folders and takes other pictures as upright; else a key
            of `common.data.samples.ORIENTATIONS`.
        threshold: for soft masks: values of at least this are lesion; None for what the folder's layout says,
            which for plain masks is any non-zero value.
        fit: how the generator's slices became square, see `common.data.resizing.fit_square`.
        empty_masks: what its training did with masks without lesion; where it was ``drop``, one line says
            which of these are such: what the generator draws there it never learned.
    Raises:
        UserError: no such folder, no masks in it, two of one name, or one that cannot be read.
    """

    def __init__(
        self,
        input_dir: str | os.PathLike[str] | None,
        image_size: int,
        orientation: str = "auto",
        threshold: int | None = None,
        fit: str = "pad",
        empty_masks: str = "keep",
    ) -> None:
        self.fit = check_fit_name(fit)
        if input_dir is None:
            raise UserError("inference needs --input_dir: a folder of masks (PNG or NIfTI)")
        if orientation != "auto" and orientation not in ORIENTATIONS:
            raise UserError(
                f"orientation {orientation!r} is unknown; choose one of auto, {', '.join(ORIENTATIONS)}"
            )
        files = files_by_stem(Path(input_dir)).values()
        if not files:
            raise UserError(f"{input_dir}: holds no masks; put PNG or NIfTI masks there")
        records = [_with(mask_file(file), orientation, threshold) for file in files]
        self.samples: list[Sample] = [sample for record in records for sample in expand(record)]
        self.shapes: list[tuple[int, int]] = []  # (H, W) of each mask, upright
        self.labels = self._read(image_size)  # (N, 1, S, S)
        if empty_masks == "drop":
            self._warn_of_empty()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"label": self.labels[index], "sample": index, **self._place(self.samples[index])}

    @staticmethod
    def _place(sample: Sample) -> dict[str, Any]:
        name = stem(sample.image)
        if sample.index is None:
            return noise_place(name)
        return noise_place(name, sample.index * open_volume(sample.image).spacing[2])

    def _read(self, size: int) -> Tensor:
        labels = np.empty((len(self.samples), 1, size, size), dtype=np.float32)
        for position, sample in enumerate(self.samples):
            mask = read_mask(sample)
            self.shapes.append((mask.shape[0], mask.shape[1]))
            labels[position, 0] = fit_mask(mask, size, self.fit)
        return torch.from_numpy(labels)

    def _warn_of_empty(self) -> None:
        empty = [position for position, label in enumerate(self.labels) if not label.any()]
        if empty:
            logger.warning(
                "%d of %d masks are empty, the first %s: the model was trained without such slices, what it "
                "draws there is not to be relied on; train with --empty_masks keep for them",
                len(empty),
                len(self),
                self.samples[empty[0]].name,
            )


def _with(sample: Sample, orientation: str, threshold: int | None) -> Sample:
    if orientation != "auto":
        sample = replace(sample, orientation=orientation)
    return sample if threshold is None else replace(sample, mask_threshold=threshold)


def files_of(samples: Sequence[Sample]) -> dict[Path, list[int]]:
    """The positions of each file's slices, in order."""
    positions: dict[Path, list[int]] = {}
    for position, sample in enumerate(samples):
        positions.setdefault(sample.image, []).append(position)
    return positions

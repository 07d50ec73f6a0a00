"""A folder of masks (PNG slices, NIfTI slices or volumes) as a dataset of single slices."""

from __future__ import annotations

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
from common.data.resizing import resize_mask
from common.data.samples import ORIENTATIONS, Sample, stem
from common.data.volumes import open_volume
from common.errors import UserError


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
    Raises:
        UserError: no such folder, no masks in it, two of one name, or one that cannot be read.
    """

    def __init__(
        self,
        input_dir: str | os.PathLike[str] | None,
        image_size: int,
        orientation: str = "auto",
        threshold: int | None = None,
    ) -> None:
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
            labels[position, 0] = resize_mask(mask, size, size)
        return torch.from_numpy(labels)


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

"""Real images as a trained model's own were prepared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.images import ImageDataset
from common.data.samples import Sample, stem
from common.data.standardise import Standardiser
from common.data.volumes import is_volume, volume_depth
from common.errors import UserError
from common.numbers import whole_number

IMAGE = "image"


def image_as_in_training(
    path: str | os.PathLike[str],
    info: Mapping[str, Any],
    image_size: int,
    slice_index: int | None = None,
    hu_offset: float | None = None,
) -> Tensor:
    """One picture, or one slice of a volume, of any size: (1, 1, S, S) in [-1, 1].

    Args:
        path: the file, or the folder of a DICOM series.
        info: what stands beside the model (`common.inference.models.model_info`): window, fit, standardiser.
        image_size: S.
        slice_index: axial slice, counted from the feet; None for the middle one.
        hu_offset: what to add to a volume that is no HU, see `common.data.intensity.offset_to_hu`.
    Raises:
        UserError: no such file, no image, or no such slice.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(f"{file}: no such file; check the path")
    state = info.get("standardiser")
    dataset = ImageDataset(
        [Sample(file, None, stem(file), _slice(file, slice_index), category=IMAGE, hu_offset=hu_offset)],
        [IMAGE],
        image_size,
        fit=info.get("fit", "pad"),
        window=info.get("window_hu", "lung"),
        standardiser=None if state is None else Standardiser.from_state(state),
    )
    return torch.from_numpy(dataset.images)  # (1, 1, S, S)


def _slice(file: Path, index: int | None) -> int | None:
    if not is_volume(file):
        if index is not None:
            raise UserError(f"{file}: a picture has no slices; leave out the slice's number")
        return None
    depth = volume_depth(file)
    chosen = depth // 2 if index is None else whole_number("slice", index)
    if chosen >= depth:
        raise UserError(f"{file}: has no slice {chosen}; its {depth} slices are numbered from 0")
    return chosen

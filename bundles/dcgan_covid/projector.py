"""The latent for TensorBoard's projector: coordinates, labels and a sprite of thumbnails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from bundles.dcgan_covid.embedding import Pictures
from common.data.new_folder import new_folder

CONFIG = "projector_config.pbtxt"
TAG = "latent"
COLUMNS = ["class", "name"]


def write_projector(
    folder: str | os.PathLike[str], points: np.ndarray, pictures: Pictures, thumbnail: int = 48
) -> Path:
    """Writes the folder anew, whole or not at all; TensorBoard shows it under "Projector".

    Args:
        folder: a run of its own, such as ``logs/projector``; an earlier export there is replaced.
        points: (N, L).
        pictures: N of them.
        thumbnail: side of a thumbnail in the sprite.
    Raises:
        UserError: the folder holds something else, or it cannot be written.
    """
    target = Path(folder)
    if (target / CONFIG).is_file():
        shutil.rmtree(target)
    labels = [
        [pictures.class_names[kind], name.replace("\t", " ")]
        for kind, name in zip(pictures.classes, pictures.names, strict=True)
    ]
    sprites = torch.from_numpy(pictures.thumbnails(thumbnail))[:, None].float().div(255)  # (N, 1, T, T)
    with new_folder(target) as temporary, SummaryWriter(str(temporary)) as writer:
        writer.add_embedding(points, labels, sprites.expand(-1, 3, -1, -1), tag=TAG, metadata_header=COLUMNS)
        writer.add_text(TAG, f"{len(points)} images, {points.shape[1]} values each: see Projector")
    return target

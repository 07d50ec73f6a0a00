"""The sets of slices that Table III compares: the chain's own, before and after stage 2, and its rivals'."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.composition.reading import Composites
from bundles.lung_two_stage.enhancement.images import to_images
from common.data.intensity import Window
from common.data.resizing import resize_image
from common.inference.latents import latents
from common.inference.models import load_weights, model_info, model_window, network_for
from common.random import generator

ENHANCED, COMPOSITES = "enhanced", "composites"
HOW_TO_TRAIN = "train_normals.yaml with the rival's overlay, on slices with nodules"

logger = logging.getLogger(__name__)


def drawn_numbers(total: int, count: int, seed: int) -> list[int]:
    """``count`` numbers of ``total``, sorted; all of fewer. Equal for equal arguments."""
    return sorted(generator(seed, "evaluation", "composites").permutation(total)[:count].tolist())


def chain_sets(
    composites_dir: str | os.PathLike[str],
    enhanced_dir: str | os.PathLike[str],
    window: Window,
    count: int,
    seed: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:
    """The same composites before and after the enhancement.

    Returns:
        Images (N, 1, H, W) in [-1, 1] by name, and their masks (N, 1, H, W) in {0, 1}.
    Raises:
        UserError: shards are not finished.
    """
    folders = {COMPOSITES: Composites(composites_dir), ENHANCED: Composites(enhanced_dir)}
    total = min(len(folder) for folder in folders.values())
    numbers = drawn_numbers(total, count, seed)
    images = {
        name: to_images(np.stack([folder[number].image for number in numbers]), window)
        for name, folder in folders.items()
    }
    masks = np.stack([folders[ENHANCED][number].mask > 0 for number in numbers])
    return images, torch.from_numpy(masks.astype(np.float32))[:, None]


def rival_sets(
    paths: Mapping[str, str | os.PathLike[str]],
    count: int,
    image_size: tuple[int, int],
    window: Window,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Slices (``count``, 1, H, W) in [-1, 1] of each rival that was trained; the others are said in one line.

    Args:
        paths: of the models, by name.
        window: that the images are compared in.
    """
    found = {}
    for name, path in paths.items():
        if Path(path).is_file():
            found[name] = rival_slices(path, count, image_size, window, seed)
        else:
            logger.info(f"{path}: {name} is not trained, it is left out")
    return found


def bases(composites_dir: str | os.PathLike[str], count: int, seed: int = 0) -> list[str]:
    """The normal slices that the composites of `chain_sets` were laid on: those of one are one patient's."""
    folder = Composites(composites_dir)
    found = (folder[number].record["normal"] for number in drawn_numbers(len(folder), count, seed))
    return [normal.get("patient") or normal["name"] for normal in found]


@torch.inference_mode()
def rival_slices(
    path: str | os.PathLike[str], count: int, image_size: tuple[int, int], window: Window, seed: int = 0
) -> Tensor:
    """Samples of a generator of noise, brought to the size and the window of the others.

    Raises:
        UserError: the model cannot be read, or is no network of this project.
    """
    info = model_info(path)
    network = load_weights(network_for(path, nn.Identity()), path, HOW_TO_TRAIN)
    noise = latents(seed, range(count), int(info["latent"]))
    classes = int(getattr(network, "classes", 0))
    images = []
    for first in range(0, count, 32):
        inputs = [noise[first : first + 32]]
        if classes:
            inputs.append(torch.arange(first, first + len(inputs[0])) % classes)
        images.append(network(*inputs)[:, :1].float())
    return in_window(_sized(torch.cat(images), image_size), model_window(info), window)


def in_window(images: Tensor, own: Window, window: Window) -> Tensor:
    """Images in [-1, 1] of one HU window in another, clipped."""
    hu = (images + 1) / 2 * own.width + own.lower
    return ((hu - window.lower) / window.width * 2 - 1).clamp(-1, 1)


def _sized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == image_size:
        return images
    resized = [resize_image(image[0].numpy(), *image_size) for image in (images + 1) / 2]
    return torch.from_numpy(np.stack(resized))[:, None].float() * 2 - 1

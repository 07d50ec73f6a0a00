"""Real and generated images in the autoencoder's latent: what the map and the projector show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundles.dcgan_covid.autoencoder import DenseAutoencoder
from bundles.dcgan_covid.networks import Generator
from common.data.image_data import ImageData
from common.data.samples import Sample
from common.errors import UserError
from common.inference.drawing import draw_images
from common.inference.latents import latents
from common.inference.numbering import BLOCK, class_names_of
from common.training.modes import evaluating

GENERATED = "generated"
MOST_REAL_CLASSES = 5
SAME_SCALE = {"window_hu": "window", "fit": "fit"}
"""Entries of a model's metadata on which its images' grey levels and shape depend, and their settings."""


@dataclass(frozen=True)
class Pictures:
    """Images of named classes.

    Attributes:
        images: (N, 1, S, S) in [-1, 1].
        classes: (N,) integers that index ``class_names``.
        class_names: for the legend.
        names: N captions.
    """

    images: Tensor
    classes: np.ndarray
    class_names: list[str]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def beside(self, other: Pictures) -> Pictures:
        """These, then the others, whose classes are counted on."""
        classes = np.concatenate([self.classes, other.classes + len(self.class_names)])
        images = torch.cat([self.images, other.images])
        return Pictures(images, classes, [*self.class_names, *other.class_names], [*self.names, *other.names])

    def thumbnails(self, size: int) -> np.ndarray:
        """(N, T, T) uint8, -1 black and 1 white."""
        small = resized(self.images, size)[:, 0]
        return small.add(1).mul(127.5).round().clamp(0, 255).byte().numpy()


def real_pictures(data: ImageData, most: int) -> Pictures:
    """The set's images, of all its splits; where there are more than ``most``, spread evenly over the set.

    Args:
        data: loaded without flips.
        most: images.
    Raises:
        UserError: more classes than a legend holds.
    """
    if len(data.class_names) > MOST_REAL_CLASSES:
        raise UserError(
            f"{data.dataset_dir}: {len(data.class_names)} classes are more than the map's "
            f"{MOST_REAL_CLASSES}; train the autoencoder with --classes A,B"
        )
    parts = data.datasets.items()
    names = [f"{caption(sample)} ({split})" for split, part in parts for sample in part.samples]
    images = np.concatenate([part.images for _, part in parts])  # (N, 1, S, S)
    classes = np.concatenate([part.classes for _, part in parts])
    places = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    return Pictures(
        torch.from_numpy(images[places]),
        classes[places],
        [f"real {name}" for name in data.class_names],
        [names[place] for place in places],
    )


def generated_pictures(
    network: Generator, info: Mapping[str, Any], count: int, seed: int, image_size: int
) -> Pictures:
    """Samples 0 to ``count`` - 1 of a seed, of conditional models the classes in turn.

    Args:
        network: the trained generator.
        info: what stands beside it.
        image_size: side of the result; the generator's images are resized where theirs is another.
    """
    device = next(network.parameters()).device
    noise = latents(seed, range(count), network.latent).to(device)
    names, conditions = [f"sample {number} of seed {seed}" for number in range(count)], None
    if network.classes:
        kinds = class_names_of(network.classes, info)
        conditions = torch.arange(count, device=device) % len(kinds)
        names = [f"{name}, {kinds[number % len(kinds)]}" for number, name in enumerate(names)]
    images = resized(draw_images(network, noise, conditions).cpu(), image_size)
    return Pictures(images, np.zeros(count, np.int64), [GENERATED], names)


@torch.no_grad()
def embedded(network: DenseAutoencoder, pictures: Pictures) -> np.ndarray:
    """The latents of the pictures: (N, 2) or (N, 3) float32."""
    device = next(network.parameters()).device
    with evaluating(network):
        parts = [network.encode(block.to(device)).float().cpu() for block in pictures.images.split(BLOCK)]
    return torch.cat(parts).numpy()


def check_scale(autoencoder: Mapping[str, Any], generator: Mapping[str, Any]) -> None:
    """Refuses two models whose images mean different things: one latent space would part them by that.

    Args:
        autoencoder, generator: what stands beside the models.
    Raises:
        UserError: names the setting and both values.
    """
    for entry, setting in SAME_SCALE.items():
        if entry in autoencoder and entry in generator and autoencoder[entry] != generator[entry]:
            raise UserError(
                f"the autoencoder's {entry} is {autoencoder[entry]}, the generator's {generator[entry]}; "
                f"train both with the same --{setting}"
            )


def caption(sample: Sample) -> str:
    """A file's name, with the slice of a volume."""
    return sample.image.name if sample.index is None else f"{sample.image.name} slice {sample.index}"


def resized(images: Tensor, size: int) -> Tensor:
    """(N, 1, S, S) -> (N, 1, size, size); shrinking averages over the covered area."""
    if images.shape[-1] == size:
        return images
    return nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)

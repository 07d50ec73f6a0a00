"""The latent map: real and generated images in an autoencoder's latent space, as page or for TensorBoard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bundles.dcgan_covid.autoencoder import MEAN_IMAGE, MSE, DenseAutoencoder
from bundles.dcgan_covid.latent_interpolation import check_path
from bundles.dcgan_covid.networks import Generator
from common.data.datamodules import ImageData
from common.data.samples import Sample
from common.errors import UserError, check_int
from common.explorer.explorer import Atlas, Explorer, dense_layers, write_explorer
from common.files import atomic_folder
from common.inference.sampling import BLOCK, chosen_classes, class_names_of, draw_images, latents
from common.networks.state import evaluating
from common.visualization import grey_levels

GENERATED = "generated"
MOST_REAL_CLASSES = 5
SAME_SCALE = {"window_hu": "window", "fit": "fit"}
"""Facts of a model on which its images' grey levels and shape depend -> their settings."""


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

    def concat(self, other: Pictures) -> Pictures:
        """Returns these images, then the others, with their classes appended."""
        classes = np.concatenate([self.classes, other.classes + len(self.class_names)])
        images = torch.cat([self.images, other.images])
        return Pictures(images, classes, [*self.class_names, *other.class_names], [*self.names, *other.names])

    def thumbnails(self, size: int) -> np.ndarray:
        """Returns thumbnails (N, T, T) uint8, -1 black and 1 white."""
        return grey_levels(resized(self.images, size))


def real_pictures(data: ImageData, most: int) -> Pictures:
    """Returns images of all splits of a set, spread evenly over it if there are more than ``most``.

    Args:
        data: loaded without flips.
        most: largest number of images.
    Raises:
        UserError: more classes than the legend holds.
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
    indices = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    return Pictures(
        torch.from_numpy(images[indices]),
        classes[indices],
        [f"real {name}" for name in data.class_names],
        [names[index] for index in indices],
    )


def generated_pictures(
    network: Generator, info: Mapping[str, Any], count: int, seed: int, image_size: int
) -> Pictures:
    """Draws samples 0 to ``count`` - 1 of a seed, with alternating classes for conditional models.

    Args:
        network: the trained generator.
        info: the facts beside it.
        count: number of images.
        seed: of the noise.
        image_size: side that the images are resized to.
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
def encode(network: DenseAutoencoder, pictures: Pictures) -> np.ndarray:
    """Returns the latents of the pictures: (N, 2) or (N, 3) float32."""
    device = next(network.parameters()).device
    with evaluating(network):
        parts = [network.encode(block.to(device)).float().cpu() for block in pictures.images.split(BLOCK)]
    return torch.cat(parts).numpy()


def check_scale(autoencoder: Mapping[str, Any], generator: Mapping[str, Any]) -> None:
    """Checks that the grey levels and shapes of two models' images mean the same.

    Args:
        autoencoder, generator: the facts beside the models.
    Raises:
        UserError: they do not; names the setting and both values.
    """
    for entry, setting in SAME_SCALE.items():
        if entry in autoencoder and entry in generator and autoencoder[entry] != generator[entry]:
            raise UserError(
                f"the autoencoder's {entry} is {autoencoder[entry]}, the generator's {generator[entry]}; "
                f"train both with the same --{setting}"
            )


def caption(sample: Sample) -> str:
    """Returns a file's name, with the slice of a volume."""
    return sample.image.name if sample.index is None else f"{sample.image.name} slice {sample.index}"


def resized(images: Tensor, size: int) -> Tensor:
    """Resizes (N, 1, S, S) -> (N, 1, size, size); shrinking averages over the covered area."""
    if images.shape[-1] == size:
        return images
    return nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


SPHERICAL = "spherical"
NOTES = (
    "The plane through the noise of three seeds: {a} at the top left, {b} at the top right, {c} at the "
    "bottom left; the fourth corner is {b} + {c} − {a}."
)
ON_SHELL = " Each point is as far from 0 as the seeds' own noise, where the generator was trained."


def plane_latents(anchors: Tensor, size: int, path: str = SPHERICAL) -> Tensor:
    """Returns a grid on the plane through a, b and c: (3, L) -> (size, size, L).

    Row i, column j is a + s (b - a) + t (c - a), s = j / (size - 1) to the right and t = i / (size - 1) down.
    ``spherical`` gives each point the norm of the anchors, interpolated bilinearly (the mean of b and c for
    the fourth corner): on the flat plane b + c - a would be 1.7 times as long as a draw from N(0, I).

    Raises:
        UserError: unknown path.
    """
    check_path(path)
    a, b, c = anchors
    share = torch.linspace(0, 1, size, device=anchors.device)
    down, right = share[:, None, None], share[None, :, None]
    flat = a + right * (b - a) + down * (c - a)  # (size, size, L)
    if path != SPHERICAL:
        return flat
    one, two, three = anchors.norm(dim=1)
    top, bottom = torch.lerp(one, two, right), torch.lerp(three, (two + three) / 2, right)
    return flat / flat.norm(dim=2, keepdim=True).clamp_min(1e-6) * torch.lerp(top, bottom, down)


def plane_atlas(
    network: Generator,
    info: Mapping[str, Any],
    seeds: str | Sequence[int],
    size: int = 24,
    pixels: int = 64,
    path: str = SPHERICAL,
    category: str | None = None,
) -> Atlas:
    """Draws the generator's samples on the plane through sample 0 of three seeds.

    Args:
        network: the trained generator.
        info: the facts beside it.
        seeds: three seeds, as a list or separated by commas.
        size: samples on a side.
        pixels: side of a sample.
        path: see `plane_latents`.
        category: class of all samples of a conditional model; None for its first.
    Raises:
        UserError: not three different seeds, fewer than 2 samples on a side, unknown class or path.
    """
    a, b, c = three_seeds(seeds)
    rows = check_int("atlas", size, least=2)
    anchors = torch.cat([latents(seed, [0], network.latent) for seed in (a, b, c)])  # (3, L)
    noise = plane_latents(anchors, rows, path).flatten(0, 1).to(next(network.parameters()).device)
    images = draw_images(network, noise, _conditions(network, info, category, noise)).cpu()
    grey = grey_levels(resized(images, check_int("atlas_pixels", pixels, least=8)))
    samples = grey.reshape(rows, rows, *grey.shape[-2:])  # (R R, T, T) -> (R, R, T, T)
    corners = [f"seed {a}", f"seed {b}", f"seed {c}", f"{b} + {c} − {a}"]
    notes = NOTES.format(a=a, b=b, c=c) + (ON_SHELL if path == SPHERICAL else "")
    return Atlas(samples, corners, notes)


def three_seeds(seeds: str | Sequence[int]) -> list[int]:
    """Returns the three seeds of a setting.

    Raises:
        UserError: not three different whole numbers.

    Example:
        >>> three_seeds("4,8,15")
        [4, 8, 15]
    """
    listed = seeds.split(",") if isinstance(seeds, str) else list(seeds)
    numbers = [check_int("plane_seeds", seed) for seed in listed]
    if len(set(numbers)) != 3 or len(numbers) != 3:
        raise UserError(f"plane_seeds {','.join(map(str, numbers))}: a plane needs three different seeds")
    return numbers


def _conditions(
    network: Generator, info: Mapping[str, Any], category: str | None, noise: Tensor
) -> Tensor | None:
    """Returns the class of each sample; None for an unconditional model."""
    names = class_names_of(network.classes, info) if network.classes else []
    if not names and category is None:
        return None
    index = 0 if category is None else chosen_classes([category], names)[0]
    return torch.full((len(noise),), index, device=noise.device)


CONFIG = "projector_config.pbtxt"
TAG = "latent"
COLUMNS = ["class", "name"]


def write_projector(
    folder: str | os.PathLike[str], points: np.ndarray, pictures: Pictures, thumbnail: int = 48
) -> Path:
    """Writes a run that TensorBoard shows under "Projector", atomically.

    Args:
        folder: a folder of its own, such as ``logs/projector``; an earlier export there is replaced.
        points: (N, L).
        pictures: N images.
        thumbnail: side of a thumbnail in the sprite.
    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    target = Path(folder)
    if (target / CONFIG).is_file():
        shutil.rmtree(target)
    labels = [
        [pictures.class_names[kind], name.replace("\t", " ")]
        for kind, name in zip(pictures.classes, pictures.names, strict=True)
    ]
    sprites = torch.from_numpy(pictures.thumbnails(thumbnail))[:, None].float().div(255)  # (N, 1, T, T)
    with atomic_folder(target) as temporary, SummaryWriter(str(temporary)) as writer:
        writer.add_embedding(points, labels, sprites.expand(-1, 3, -1, -1), tag=TAG, metadata_header=COLUMNS)
        writer.add_text(TAG, f"{len(points)} images, {points.shape[1]} values each: see Projector")
    return target


TITLE = "Lung CT: latent explorer"
PRIVACY = (
    "{count} real images are in it as thumbnails, with their files' names: share it only where these may be"
)


@dataclass(frozen=True)
class LatentMap:
    """Real and generated images in the latent space of an autoencoder.

    Args:
        network: the trained autoencoder.
        info: the facts beside it.
        generator: the trained generator.
        generator_info: the facts beside that.
        data: makes the set of real images, prepared as for the autoencoder's training.
        num_real: largest number of real images; for 0 ``data`` is not called.
        num_samples: number of generated images.
        seed: seed of the generated images.
        thumbnail: side of a thumbnail in pixels.
    """

    network: DenseAutoencoder
    info: Mapping[str, Any]
    generator: Generator
    generator_info: Mapping[str, Any]
    data: Callable[[], ImageData]
    num_real: int = 1000
    num_samples: int = 200
    seed: int = 0
    thumbnail: int = 48

    def pictures(self) -> Pictures:
        """Returns the real images, then the generated ones.

        Raises:
            UserError: the models do not belong together, data are missing, or a number is invalid.
        """
        check_scale(self.info, self.generator_info)
        count = check_int("num_samples", self.num_samples, least=1)
        most = check_int("num_real", self.num_real)
        size = self.network.image_size
        generated = generated_pictures(self.generator, self.generator_info, count, self.seed, size)
        return real_pictures(self.data(), most).concat(generated) if most else generated

    def write_projector(self, folder: str | os.PathLike[str]) -> None:
        """Writes what TensorBoard's projector shows, and prints its folder."""
        pictures = self.pictures()
        points = encode(self.network, pictures)
        written = write_projector(folder, points, pictures, self.thumbnail)
        print(f"{written}: {_counts(pictures)}; see them with: tensorboard --logdir {written.parent}")
        _print_privacy_note(pictures, self.num_samples)


@dataclass(frozen=True)
class ExplorerPage:
    """The latent explorer's HTML file.

    Args:
        latent: the map that it shows.
        output: the file, ``.html``.
        atlas: samples on a side of the generator's plane; 0 for no plane.
        atlas_pixels, plane_seeds, plane_path, plane_class: see `plane_atlas`.
        title: of the page.
    """

    latent: LatentMap
    output: str | os.PathLike[str]
    atlas: int = 24
    atlas_pixels: int = 64
    plane_seeds: str | Sequence[int] = (1, 2, 3)
    plane_path: str = "spherical"
    plane_class: str | None = None
    title: str = TITLE

    def run(self) -> None:
        """Encodes, draws and writes; prints the file and the images that it shows.

        Raises:
            UserError: as `LatentMap.pictures` and `plane_atlas`, or the file would be too large.
        """
        latent, network, atlas = self.latent, self.latent.network, None
        if check_int("atlas", self.atlas):
            plane = (self.plane_seeds, self.atlas, self.atlas_pixels, self.plane_path, self.plane_class)
            atlas = plane_atlas(latent.generator, latent.generator_info, *plane)
        pictures = latent.pictures()
        explorer = Explorer(
            points=encode(network, pictures),
            classes=pictures.classes,
            class_names=pictures.class_names,
            names=pictures.names,
            thumbnails=pictures.thumbnails(check_int("thumbnail", latent.thumbnail, least=8)),
            decoder=dense_layers(network.decoder),
            image_size=network.image_size,
            value_range=(-1.0, 1.0),
            atlas=atlas,
            title=self.title,
            notes=describe(pictures, network, latent.info),
        )
        path = write_explorer(self.output, explorer)
        print(f"{path}: {_counts(pictures)}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser")
        _print_privacy_note(pictures, latent.num_samples)


def describe(pictures: Pictures, network: DenseAutoencoder, info: Mapping[str, Any]) -> str:
    """Returns the page's sentence on its images and the autoencoder's error."""
    generated = int((pictures.classes == len(pictures.class_names) - 1).sum())
    text = (
        f"{len(pictures) - generated} real and {generated} generated images, placed by an autoencoder that "
        f"keeps {network.latent} values of each."
    )
    metrics = info.get("metrics", {})
    if MSE not in metrics or MEAN_IMAGE not in metrics:
        return text
    errors = f"{metrics[MSE]:.3f}, of the mean image {metrics[MEAN_IMAGE]:.3f}"
    return f"{text} Its mean squared error on unseen images: {errors}."


def _counts(pictures: Pictures) -> str:
    counts = np.bincount(pictures.classes, minlength=len(pictures.class_names))
    return ", ".join(f"{count} {name}" for count, name in zip(counts, pictures.class_names, strict=True))


def _print_privacy_note(pictures: Pictures, generated: int) -> None:
    real = len(pictures) - int(generated)
    if real:
        print(PRIVACY.format(count=real))

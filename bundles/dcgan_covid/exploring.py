"""``run explorer`` and ``run embedding``: the autoencoder's latent as a web page, and for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundles.dcgan_covid.autoencoder import DenseAutoencoder
from bundles.dcgan_covid.embedding import (
    Pictures,
    check_scale,
    embedded,
    generated_pictures,
    real_pictures,
)
from bundles.dcgan_covid.networks import Generator
from bundles.dcgan_covid.plane import plane_atlas
from bundles.dcgan_covid.projector import write_projector
from bundles.dcgan_covid.reconstruction import MEAN_IMAGE, MSE
from common.data.image_data import ImageData
from common.explorer import Atlas, Explorer, dense_layers, write_explorer
from common.numbers import whole_number

TITLE = "Lung CT: latent explorer"
PRIVACY = (
    "{count} real images are in it as thumbnails, with their files' names: share it only where these may be"
)


@dataclass(frozen=True)
class Latent:
    """Images of both kinds, encoded.

    Args:
        network: the trained autoencoder.
        info: what stands beside it.
        generator: the trained generator.
        generator_info: what stands beside that.
        data: makes the set of real images as the autoencoder's own were prepared.
        num_real: most real images; 0 for none at all, then ``data`` is not called.
        num_samples: generated images.
        seed: of the generated images.
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
        """The real images, then the generated ones.

        Raises:
            UserError: the models do not belong together, missing data, or a bad number.
        """
        check_scale(self.info, self.generator_info)
        count = whole_number("num_samples", self.num_samples, least=1)
        most = whole_number("num_real", self.num_real)
        size = self.network.image_size
        generated = generated_pictures(self.generator, self.generator_info, count, self.seed, size)
        return real_pictures(self.data(), most).beside(generated) if most else generated

    def points(self, pictures: Pictures) -> np.ndarray:
        """(N, 2) or (N, 3) float32."""
        return embedded(self.network, pictures)

    def write_projector(self, folder: str | os.PathLike[str]) -> None:
        """Writes what TensorBoard's projector shows; says where it is."""
        pictures = self.pictures()
        written = write_projector(folder, self.points(pictures), pictures, self.thumbnail)
        print(f"{written}: {_counted(pictures)}; see them with: tensorboard --logdir {written.parent}")
        _tell_privacy(pictures, self.num_samples)


@dataclass(frozen=True)
class Page:
    """The explorer's file.

    Args:
        latent: what it shows.
        output: the file, ``.html``.
        atlas: samples on a side of the generator's plane; 0 for no plane.
        atlas_pixels, plane_seeds, plane_path, plane_class: see `bundles.dcgan_covid.plane.plane_atlas`.
        title: of the page.
    """

    latent: Latent
    output: str | os.PathLike[str]
    atlas: int = 24
    atlas_pixels: int = 64
    plane_seeds: str | Sequence[int] = (1, 2, 3)
    plane_path: str = "spherical"
    plane_class: str | None = None
    title: str = TITLE

    def run(self) -> None:
        """Encodes, draws and writes; says where the file is and whom it shows.

        Raises:
            UserError: as `Latent.pictures` and `bundles.dcgan_covid.plane.plane_atlas`, or the file would be
                too large.
        """
        atlas = self._atlas()
        pictures = self.latent.pictures()
        path = write_explorer(self.output, self._explorer(pictures, atlas))
        print(f"{path}: {_counted(pictures)}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser")
        _tell_privacy(pictures, self.latent.num_samples)

    def _explorer(self, pictures: Pictures, atlas: Atlas | None) -> Explorer:
        network = self.latent.network
        return Explorer(
            points=self.latent.points(pictures),
            classes=pictures.classes,
            class_names=pictures.class_names,
            names=pictures.names,
            thumbnails=pictures.thumbnails(whole_number("thumbnail", self.latent.thumbnail, least=8)),
            decoder=dense_layers(network.decoder),
            image_size=network.image_size,
            value_range=(-1.0, 1.0),
            atlas=atlas,
            title=self.title,
            notes=notes(pictures, network, self.latent.info),
        )

    def _atlas(self) -> Atlas | None:
        if not whole_number("atlas", self.atlas):
            return None
        return plane_atlas(
            self.latent.generator,
            self.latent.generator_info,
            self.plane_seeds,
            self.atlas,
            self.atlas_pixels,
            self.plane_path,
            self.plane_class,
        )


def notes(pictures: Pictures, network: DenseAutoencoder, info: Mapping[str, Any]) -> str:
    """What the page says of itself."""
    generated = int((pictures.classes == len(pictures.class_names) - 1).sum())
    said = (
        f"{len(pictures) - generated} real and {generated} generated images, placed by an autoencoder that "
        f"keeps {network.latent} values of each."
    )
    metrics = info.get("metrics", {})
    if MSE not in metrics or MEAN_IMAGE not in metrics:
        return said
    errors = f"{metrics[MSE]:.3f}, of the mean image {metrics[MEAN_IMAGE]:.3f}"
    return f"{said} Its mean squared error on unseen images: {errors}."


def _counted(pictures: Pictures) -> str:
    """How many of each class."""
    counts = np.bincount(pictures.classes, minlength=len(pictures.class_names))
    return ", ".join(f"{count} {name}" for count, name in zip(counts, pictures.class_names, strict=True))


def _tell_privacy(pictures: Pictures, generated: int) -> None:
    real = len(pictures) - int(generated)
    if real:
        print(PRIVACY.format(count=real))

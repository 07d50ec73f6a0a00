"""The ends of a walk as places in the latent space: drawn from a seed, or found for a real image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bundles.dcgan_covid.ends import End
from bundles.dcgan_covid.networks import Generator
from bundles.dcgan_covid.projection import Projection, ProjectionSettings, project
from common.inference.latents import latents
from common.inference.numbering import chosen_classes, class_names_of
from common.inference.real_images import image_as_in_training
from common.metrics.images import image_metrics


class Place(NamedTuple):
    """Where an end lies.

    Attributes:
        latent: (L,).
        condition: class index, a scalar; None of unconditional models.
        real: the image that was projected, (1, 1, S, S) in [-1, 1].
        report: where it comes from, and how near a projection came: plain numbers and texts.
    """

    latent: Tensor
    condition: Tensor | None
    real: Tensor | None
    report: dict[str, Any]


@dataclass(frozen=True)
class Placing:
    """How ends become places.

    Args:
        network: the trained generator.
        info: what stands beside the model.
        image_size: side of its images.
        seed: of the candidates that projections begin with.
        settings: of projections.
        hu_offset: of real images, see `common.inference.real_images.image_as_in_training`.
    """

    network: Generator
    info: Mapping[str, Any]
    image_size: int
    seed: int = 0
    settings: ProjectionSettings = field(default_factory=ProjectionSettings)
    hu_offset: float | None = None

    @property
    def class_names(self) -> list[str]:
        """The classes that the model is conditioned on."""
        return class_names_of(self.network.classes, self.info)

    def place(self, end: End, start: Place | None = None) -> Place:
        """Where ``end`` lies; what it leaves open is as at ``start``.

        Raises:
            UserError: an image that cannot be read, or an unknown class.
        """
        if end.image is not None:
            return self._projected(end)
        if end.seed is None and start is not None:
            return Place(start.latent, self._class(end), None, {"latent_of": "start"})
        seed, sample = end.place
        keeps = start is not None and end.category is None
        condition = start.condition if start is not None and keeps else self._class(end)
        return Place(self._latents(seed, [sample])[0], condition, None, {"seed": seed, "sample": sample})

    def _class(self, end: End) -> Tensor | None:
        """The class that is named, else the sample's own, see `common.inference.numbering.SampleNumbers`."""
        if not self.class_names:
            return None
        if end.category is None:
            return self._numbers([end.place[1] % len(self.class_names)])[0]
        return self._numbers(chosen_classes([end.category], self.class_names))[0]

    def _projected(self, end: End) -> Place:
        assert end.image is not None
        real = image_as_in_training(end.image, self.info, self.image_size, end.slice_index, self.hu_offset)
        target, drawn = real.to(self._device), range(self.settings.drawn)
        found = project(
            self.network, target, self._latents(self.seed, drawn), self._candidate_classes(end), self.settings
        )
        report = {"image": str(end.image), **reconstruction(found, target)}
        return Place(found.latent, found.condition, real, report)

    def _candidate_classes(self, end: End) -> Tensor | None:
        """The class named for each candidate, else all of them in turn."""
        if not self.class_names:
            return None
        if end.category is not None:
            return self._numbers(chosen_classes([end.category], self.class_names) * self.settings.drawn)
        return self._numbers([number % len(self.class_names) for number in range(self.settings.drawn)])

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _latents(self, seed: int, samples: range | list[int]) -> Tensor:
        return latents(seed, samples, self.network.latent).to(self._device)

    def _numbers(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


def reconstruction(found: Projection, real: Tensor) -> dict[str, dict[str, float]]:
    """How near the found image is to the real one, and the best of the draws that the search began with."""
    return {
        name: {
            metric: round(float(value), 4)
            for metric, value in image_metrics(image, real.to(image.device)).items()
        }
        for name, image in (("reconstruction", found.image), ("best_draw", found.drawn))
    }

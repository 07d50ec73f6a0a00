"""What a trained generator draws, to be chosen from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bundles.lung_two_stage.generation.images import Images
from common.inference.drawing import draw_images
from common.inference.latents import latents
from common.inference.mixture import MixtureSamples
from common.inference.models import load_weights, model_info, network_for
from common.inference.numbering import class_names_of
from common.training.modes import preserved_rng


@dataclass(frozen=True)
class GeneratorModel:
    """A trained generator and what stands beside it.

    Args:
        network: takes latents and, where it has classes, their indices.
        info: see `common.inference.models.model_info`.
        device: where it works.
    """

    network: nn.Module
    info: Mapping[str, Any]
    device: torch.device | str = "cpu"

    @classmethod
    def load(
        cls, ckpt_path: str | os.PathLike[str], how_to_train: str, device: torch.device | str = "cpu"
    ) -> GeneratorModel:
        """The model of a training of this bundle.

        Raises:
            UserError: no model there, or none that can be read.
        """
        network = network_for(ckpt_path, otherwise=nn.Identity())
        load_weights(network, ckpt_path, how_to_train)
        return cls(network.to(device), model_info(ckpt_path), device)

    @property
    def latent(self) -> int:
        """Values of the noise."""
        return int(self.info["latent"])

    @property
    def class_names(self) -> list[str]:
        """The classes that it takes; empty where it takes none."""
        return class_names_of(int(getattr(self.network, "classes", 0)), self.info)

    def draw(self, count: int, seed: int, mixture: Sequence[int] | None = None) -> Candidates:
        """Samples 0 to ``count - 1`` of ``seed``; random states stay.

        Args:
            mixture: classes of images whose mixture is wanted; without it the classes take turns.
        """
        numbers, names = range(count), self.class_names
        classes = np.array([number % len(names) if names else 0 for number in numbers])
        if names and mixture is not None:
            classes = np.array(MixtureSamples(count, mixture).drawn_classes())
        noise = latents(seed, numbers, self.latent).to(self.device)
        condition = torch.from_numpy(classes).to(self.device) if names else None
        with preserved_rng(seed):
            images = draw_images(self.network, noise, condition).cpu().numpy()
        return Candidates(images, [names[place] if names else "" for place in classes])


@dataclass(frozen=True)
class Candidates:
    """Generated images.

    Args:
        images: (N, C, S, S) in [-1, 1]; number k is sample k of the seed.
        categories: N, the class asked for; empty where the generator takes none.
    """

    images: Images
    categories: list[str]


def shipped_or_trained(bundle_root: str, work_dir: str) -> str:
    """The model of nodules: ``models/model.pt`` where the bundle brings one, else the training's."""
    return str(Path(folder_of_nodules(bundle_root, work_dir)) / "models" / "model.pt")


def folder_of_nodules(bundle_root: str, work_dir: str) -> str:
    """The folder with the ``models/`` of nodules: the bundle where it brings them, else the training's."""
    shipped = (Path(bundle_root) / "models" / "model.pt").is_file()
    return bundle_root if shipped else str(Path(work_dir) / "nodules")

"""A plane through three points of the generator's latent space, drawn beforehand as a sheet of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundles.dcgan_covid.embedding import resized
from bundles.dcgan_covid.interpolation import check_path
from bundles.dcgan_covid.networks import Generator
from common.errors import UserError
from common.explorer import Atlas
from common.inference.drawing import draw_images
from common.inference.latents import latents
from common.inference.numbering import chosen_classes, class_names_of
from common.numbers import whole_number

SPHERICAL = "spherical"
NOTES = (
    "The plane through the noise of three seeds: {a} at the top left, {b} at the top right, {c} at the "
    "bottom left; the fourth corner is {b} + {c} − {a}."
)
ON_SHELL = " Every place is put as far from 0 as the seeds' own noise is, where the generator has learned."


def plane_latents(anchors: Tensor, size: int, path: str = SPHERICAL) -> Tensor:
    """A grid on the plane through a, b and c: (3, L) -> (size, size, L).

    Row i, column j is a + s (b - a) + t (c - a), s = j / (size - 1) to the right and t = i / (size - 1) down.
    ``spherical`` gives each the length that the anchors have, mixed bilinearly (the fourth corner counts as
    the mean of b and c): flat, the corner b + c - a would be 1.7 times as long as any draw from N(0, I).

    Raises:
        UserError: no such path.
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
    """The generator's samples on the plane through sample 0 of three seeds.

    Args:
        network: the trained generator.
        info: what stands beside it.
        seeds: three, as a list or with commas between.
        size: samples on a side.
        pixels: side of a sample.
        path: see `plane_latents`.
        category: class of all samples of a conditional model; None for its first.
    Raises:
        UserError: not three different seeds, fewer than 2 samples on a side, no such class or path.
    """
    a, b, c = three_seeds(seeds)
    rows = whole_number("atlas", size, least=2)
    anchors = torch.cat([latents(seed, [0], network.latent) for seed in (a, b, c)])  # (3, L)
    noise = plane_latents(anchors, rows, path).flatten(0, 1).to(next(network.parameters()).device)
    images = draw_images(network, noise, _conditions(network, info, category, noise)).cpu()
    small = resized(images, whole_number("atlas_pixels", pixels, least=8))
    grey = small.add(1).mul(127.5).round().clamp(0, 255).byte().numpy()
    samples = grey.reshape(rows, rows, *grey.shape[-2:])  # (R R, 1, T, T) -> (R, R, T, T)
    corners = [f"seed {a}", f"seed {b}", f"seed {c}", f"{b} + {c} − {a}"]
    notes = NOTES.format(a=a, b=b, c=c) + (ON_SHELL if path == SPHERICAL else "")
    return Atlas(samples, corners, notes)


def three_seeds(seeds: str | Sequence[int]) -> list[int]:
    """The seeds of a setting.

    Raises:
        UserError: not three different whole numbers.
    """
    listed = seeds.split(",") if isinstance(seeds, str) else list(seeds)
    numbers = [whole_number("plane_seeds", seed) for seed in listed]
    if len(set(numbers)) != 3 or len(numbers) != 3:
        raise UserError(f"plane_seeds {','.join(map(str, numbers))}: a plane needs three different seeds")
    return numbers


def _conditions(
    network: Generator, info: Mapping[str, Any], category: str | None, noise: Tensor
) -> Tensor | None:
    """The class of each sample; None of an unconditional model."""
    names = class_names_of(network.classes, info) if network.classes else []
    if not names and category is None:
        return None
    place = 0 if category is None else chosen_classes([category], names)[0]
    return torch.full((len(noise),), place, device=noise.device)

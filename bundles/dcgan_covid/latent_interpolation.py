"""Ways from one latent to another (paper C, section IV)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bundles.dcgan_covid.gan_inversion import Projection, ProjectionSettings, project
from bundles.dcgan_covid.networks import Generator
from common.errors import UserError, check_int
from common.files import write_json
from common.inference.checkpoint import image_as_in_training
from common.inference.sampling import chosen_classes, class_names_of, draw_images, latents
from common.metrics.image_quality import image_metrics
from common.provenance import UNKNOWN, Provenance
from common.visualization import save_animation, save_strip

PARALLEL = 1e-4
"""Sine of the angle below which the arc between two directions is not told from the line, or not defined."""


def linear(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """The straight line, as the paper has it: latents (L,) at ``shares`` (N,) of the way -> (N, L).

    In high dimensions the middle between two draws from N(0, I) is shorter than any draw: 0.7 of the usual
    norm, where the generator has seen nothing.
    """
    return torch.lerp(start[None], end[None], shares[:, None])  # (N, L)


def spherical(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """The great arc (Shoemake 1985): (L,), (L,), (N,) -> (N, L); it keeps the norm where both have the same.

    Raises:
        UserError: the ends lie opposite each other, or one is zero: there is no such arc.
    """
    cosine = cosine_similarity(start.double(), end.double(), dim=0).clamp(-1, 1)
    angle = cosine.acos()
    apart = bool(angle.sin() >= PARALLEL)
    if not (apart or cosine > 0) or not (start.any() and end.any()):
        raise UserError("no arc joins latents opposite each other, or zero; take --path linear")
    if not apart:
        return linear(start, end, shares)
    weights = torch.stack([(1 - shares) * angle, shares * angle]).sin() / angle.sin()  # (2, N)
    first, second = weights.to(start.dtype)[..., None]  # (N, 1) each
    return first * start + second * end  # (N, L)


PATHS = {"linear": linear, "spherical": spherical}


def interpolate(start: Tensor, end: Tensor, steps: int, path: str = "linear") -> Tensor:
    """Latents (steps, L) from ``start`` (L,) to ``end`` (L,), both included, at equal shares of the way.

    Raises:
        UserError: no such path, fewer than two steps, or no such arc.
    """
    check_path(path)
    if steps < 2:
        raise UserError(f"steps {steps}: a walk has two ends; take at least 2")
    return PATHS[path](start, end, torch.linspace(0, 1, steps, device=start.device))


def check_path(path: str) -> None:
    """Refuses a path that is not in `PATHS`.

    Raises:
        UserError: no such path.
    """
    if path not in PATHS:
        raise UserError(f"path {path!r} is unknown; choose {' or '.join(PATHS)}")


@dataclass(frozen=True)
class End:
    """One end: a drawn sample, or a real image that is to be projected.

    Args:
        which: ``from`` or ``to``, for messages.
        seed: of the sample.
        sample: its number in the seed; None for 0.
        image: file of the real image.
        slice_index: axial slice of a volume, counted from the feet; None for the middle one.
        category: name of the class; None for the sample's own, and for the best of the image.
    Raises:
        UserError: seed and image are both given, or something that belongs to one of them without it.
    """

    which: str
    seed: int | None = None
    sample: int | None = None
    image: str | os.PathLike[str] | None = None
    slice_index: int | None = None
    category: str | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and self.image is not None:
            raise UserError(f"--{self.which}_seed and --{self.which}_image: give one of the two")
        for part, whole in (("sample", self.seed), ("slice", self.image)):
            given = self.sample if part == "sample" else self.slice_index
            if given is not None and whole is None:
                needed = "seed" if part == "sample" else "image"
                raise UserError(f"--{self.which}_{part} belongs to --{self.which}_{needed}; give that too")

    @property
    def is_latent(self) -> bool:
        """Whether this says more than a class."""
        return self.seed is not None or self.image is not None

    @property
    def place(self) -> tuple[int, int]:
        """Seed and number of the sample."""
        return (
            check_int(f"{self.which}_seed", self.seed),
            check_int(f"{self.which}_sample", self.sample or 0),
        )

    @property
    def name(self) -> str:
        """For people."""
        return f"seed {self.seed} sample {self.sample or 0}" if self.image is None else Path(self.image).name


def check_ends(start: End, stop: End, class_names: Sequence[str]) -> None:
    """Refuses ends between which there is no walk.

    Args:
        start: must name a latent.
        stop: a latent, a class, or both.
        class_names: the model's classes; empty for an unconditional model.
    Raises:
        UserError: no latent to start from, nothing to go to, or an unknown class.
    """
    if not start.is_latent:
        raise UserError("a walk needs a start: give --from_seed or --from_image")
    for end in (start, stop):
        if end.category is not None:
            chosen_classes([end.category], class_names)
    if not stop.is_latent and stop.category is None:
        change = ", or --to_class to change the class alone" if class_names else ""
        raise UserError(f"a walk needs an end: give --to_seed or --to_image{change}")


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
        hu_offset: of real images, see `common.inference.checkpoint.image_as_in_training`.
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
        """The class that is named, else the sample's own, see `common.inference.sampling.SampleNumbers`."""
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


STRIP, ANIMATION, RECORD = "interpolation.png", "interpolation.gif", "interpolation.json"
REAL = "real image"


class Walk:
    """Images at equal steps from one latent to another and, of conditional models, from class to class.

    Writes ``interpolation.png``, a strip with the real images before and behind it where there are any,
    ``interpolation.gif``, and ``interpolation.json`` with the ends' latents and how well real images were
    reconstructed. Where the second end is a class alone, the latent stays: a walk through severity.

    Args:
        placing: the model, and how ends are found in its latent space.
        start, stop: the ends.
        output_dir: made where it is missing.
        steps: images, both ends included.
        path: ``linear`` or ``spherical``.
        provenance: what draws the images; ``interpolation.json`` has it too.
    Raises:
        UserError: no walk between these ends, fewer than two steps, or no such path.
    """

    def __init__(
        self,
        placing: Placing,
        start: End,
        stop: End,
        output_dir: str | os.PathLike[str],
        steps: int = 8,
        path: str = "linear",
        provenance: Provenance = UNKNOWN,
    ) -> None:
        self.placing, self.start, self.stop, self.provenance = placing, start, stop, provenance
        self.folder, self.steps, self.path = Path(output_dir), check_int("steps", steps, least=2), path
        check_path(path)
        check_ends(start, stop, placing.class_names)

    def run(self) -> None:
        """Finds the ends, draws and writes; says how near projections came, and where the files are."""
        first = self.placing.place(self.start)
        last = self.placing.place(self.stop, first)
        latents = interpolate(first.latent, last.latent, self.steps, self.path)
        classes = _between(first.condition, last.condition, self.steps)
        images = draw_images(self.placing.network, latents, classes)
        self._write(images, first, last, _captions(self.steps, classes, self.placing.class_names))
        for end, place in ((self.start, first), (self.stop, last)):
            if place.real is not None:
                print(f"{end.name}: {_nearness(place.report)}")
        to = self.stop.name if self.stop.is_latent else f"class {self.stop.category}"
        print(f"{self.steps} images from {self.start.name} to {to}, {self.path}, in {self.folder}")

    def _write(self, images: Tensor, first: Place, last: Place, captions: list[str]) -> None:
        tiles, shown = [images.cpu()], list(captions)
        if first.real is not None:
            tiles, shown = [first.real, *tiles], [REAL, *shown]
        if last.real is not None:
            tiles, shown = [*tiles, last.real], [*shown, REAL]
        save_strip(self.folder / STRIP, torch.cat(tiles), shown, provenance=self.provenance)
        save_animation(self.folder / ANIMATION, images, self.provenance)
        record = self.provenance.record(path=self.path, steps=self.steps)
        write_json(self.folder / RECORD, {**record, "from": _plain(first), "to": _plain(last)})


def _between(first: Tensor | None, last: Tensor | None, steps: int) -> Tensor | None:
    """Class indices from ``first`` to ``last``, mixtures of neighbours between: (steps,)."""
    if first is None or last is None:
        return None
    return torch.lerp(first, last, torch.linspace(0, 1, steps, device=first.device))


def _captions(steps: int, classes: Tensor | None, names: Sequence[str]) -> list[str]:
    counted = [f"{number} of {steps}" for number in range(1, steps + 1)]
    if classes is None:
        return counted
    return [
        f"{count}: {class_mixture(float(place), names)}"
        for count, place in zip(counted, classes, strict=True)
    ]


def class_mixture(place: float, names: Sequence[str]) -> str:
    """What a class index between two whole ones stands for, such as ``mild 75 %, moderate 25 %``."""
    below = int(place)
    share = round(100 * (place - below))
    parts = [(100 - share, below), (share, below + 1)]
    return ", ".join(
        names[index] if part == 100 else f"{names[index]} {part} %" for part, index in parts if part
    )


def _nearness(report: Mapping[str, Any]) -> str:
    """One clause on a projection."""
    found, draw = (_measures(report[name]) for name in ("reconstruction", "best_draw"))
    return f"reconstructed with {found} (the best of the draws before: {draw})"


def _measures(values: Mapping[str, float]) -> str:
    parts = [f"MAE {values['mae']:.3f}", f"PSNR {values['psnr']:.1f} dB"]
    return ", ".join([f"SSIM {values['ssim']:.3f}"] * ("ssim" in values) + parts)


def _plain(place: Place) -> dict[str, Any]:
    """An end as JSON, its latent included, so that the walk can be taken again."""
    condition = {} if place.condition is None else {"class": float(place.condition)}
    return {**place.report, **condition, "latent": [round(float(value), 6) for value in place.latent]}

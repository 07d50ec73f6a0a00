"""Interpolation in the latent space: images between two samples, real images or classes (Gubbi, section IV).

`Endpoint` is what the user gives, `LatentSpace.locate` makes a `LatentPoint` of it, `LatentWalk` draws the
images. The latent of a real image is found by optimisation (GAN inversion): `project`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.optim.lr_scheduler import CosineAnnealingLR

from bundles.dcgan_covid.networks import Generator
from common.errors import UserError, check_int
from common.files import write_json
from common.inference.checkpoint import image_as_in_training
from common.inference.sampling import chosen_classes, class_names_of, draw_images, latents
from common.metrics.image_quality import image_metrics, ssim_map
from common.networks.diffusion import DiffusionGenerator
from common.networks.state import evaluating, frozen
from common.provenance import UNKNOWN, Provenance
from common.visualization import save_animation, save_strip

PARALLEL = 1e-4
"""Sine of the angle below which two directions count as parallel or opposite."""
STRIP, ANIMATION, RECORD = "interpolation.png", "interpolation.gif", "interpolation.json"
REAL = "real image"


def linear(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Interpolates on the straight line, as in the paper: (L,), (L,), shares (N,) -> (N, L).

    In high dimensions the middle of two draws from N(0, I) has 0.7 of their norm; the generator has hardly
    been trained there.

    Example:
        >>> linear(torch.zeros(2), torch.tensor([2.0, 4.0]), torch.tensor([0.5]))
        tensor([[1., 2.]])
    """
    return torch.lerp(start[None], end[None], shares[:, None])  # (N, L)


def spherical(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Interpolates on the great arc (Shoemake 1985): (L,), (L,), (N,) -> (N, L).

    It keeps the norm if both ends have the same.

    Raises:
        UserError: the ends are opposite or one is zero, so that there is no such arc.
    """
    cosine = cosine_similarity(start.double(), end.double(), dim=0).clamp(-1, 1)
    angle = cosine.acos()
    parallel = bool(angle.sin() < PARALLEL)
    if (parallel and cosine <= 0) or not (start.any() and end.any()):
        raise UserError("no arc joins latents opposite each other, or zero; take --path linear")
    if parallel:
        return linear(start, end, shares)
    weights = torch.stack([(1 - shares) * angle, shares * angle]).sin() / angle.sin()  # (2, N)
    first, second = weights.to(start.dtype)[..., None]  # (N, 1) each
    return first * start + second * end  # (N, L)


PATHS = {"linear": linear, "spherical": spherical}


def check_path(path: str) -> None:
    """Checks that a path is a key of `PATHS`.

    Raises:
        UserError: unknown path.
    """
    if path not in PATHS:
        raise UserError(f"path {path!r} is unknown; choose {' or '.join(PATHS)}")


def interpolate(start: Tensor, end: Tensor, steps: int, path: str = "linear") -> Tensor:
    """Returns latents (steps, L) from ``start`` (L,) to ``end`` (L,), both included, at equal distances.

    Raises:
        UserError: unknown path, fewer than two steps, or no arc between the ends.
    """
    check_path(path)
    if steps < 2:
        raise UserError(f"steps {steps}: a walk has two ends; take at least 2")
    return PATHS[path](start, end, torch.linspace(0, 1, steps, device=start.device))


@dataclass(frozen=True)
class ProjectionSettings:
    """Settings of the search for a latent.

    Attributes:
        drawn: number of candidates to begin with.
        starts: number of the best candidates that are optimised, side by side.
        iterations: iterations of Adam, whose learning rate falls to 0 along a cosine.
        learning_rate: in standard deviations of the latents.
        structure: weight of 1 - SSIM relative to the mean absolute error.
        prior: weight of the distance from the shell that N(0, I) fills, see `objective`.
    Raises:
        UserError: a number below 1, or a negative weight.
    """

    drawn: int = 256
    starts: int = 4
    iterations: int = 200
    learning_rate: float = 0.05
    structure: float = 0.5
    prior: float = 0.1

    def __post_init__(self) -> None:
        for name in ("drawn", "starts", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"projection: {name} {getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "structure", "prior"):
            if getattr(self, name) < 0:
                raise UserError(f"projection: {name} {getattr(self, name)} must be at least 0")


class Projection(NamedTuple):
    """Result of a search.

    Attributes:
        latent: (L,).
        condition: its class, a scalar; None for unconditional models.
        image: its image, (1, 1, S, S) in [-1, 1].
        drawn: image of the best candidate before the optimisation, (1, 1, S, S).
    """

    latent: Tensor
    condition: Tensor | None
    image: Tensor
    drawn: Tensor


def objective(images: Tensor, target: Tensor, latents: Tensor, settings: ProjectionSettings) -> Tensor:
    """Computes mean absolute error, structural dissimilarity and the prior of N(0, I), weighted: (N,).

    The prior is the squared difference of z's mean square from 1: in L dimensions draws from N(0, I) lie
    close to a shell of radius sqrt(L); far inside or outside of it the generator has not been trained.

    Args:
        images: (N, 1, S, S) in [-1, 1].
        target: (1, 1, S, S) in [-1, 1].
        latents: (N, L).
        settings: the weights.
    """
    real = target.expand_as(images)
    error = (images - real).abs().mean((1, 2, 3))
    structure = 1 - ssim_map(images, real).mean((1, 2, 3)) if settings.structure else torch.zeros_like(error)
    shell = (latents.square().mean(1) - 1).square()
    return error + settings.structure * structure + settings.prior * shell


def project(
    network: nn.Module,
    target: Tensor,
    candidates: Tensor,
    conditions: Tensor | None = None,
    settings: ProjectionSettings | None = None,
) -> Projection:
    """Finds the latent whose image is closest to ``target``.

    Args:
        network: the generator; its weights and modes stay as they are.
        target: (1, 1, S, S) in [-1, 1].
        candidates: (N, L), draws from N(0, I) to begin with.
        conditions: (N,) class of each candidate, which it keeps, so that the best class is found too.
        settings: None for the defaults.
    Raises:
        UserError: the network draws without gradients, as a diffusion model does.
    """
    settings = settings or ProjectionSettings()
    if isinstance(network, DiffusionGenerator):
        raise UserError(
            "a diffusion model draws without gradients, so real images cannot be projected; interpolate "
            "between draws (--from_seed, --from_sample) or use a GAN's model"
        )
    images = draw_images(network, candidates, conditions)
    with torch.no_grad():
        losses = objective(images, target, candidates, settings)
    best = losses.argsort()[: settings.starts]
    classes = None if conditions is None else conditions[best]
    latents = _descend(network, target, candidates[best], classes, settings)
    results = draw_images(network, latents, classes)
    with torch.no_grad():
        index = int(objective(results, target, latents, settings).argmin())
    condition = None if classes is None else classes[index]
    return Projection(latents[index], condition, results[index : index + 1], images[best[:1]])


def _descend(
    network: nn.Module, target: Tensor, starts: Tensor, classes: Tensor | None, settings: ProjectionSettings
) -> Tensor:
    """Runs Adam from each start (N, L); the sum of the losses gives each start its own gradient."""
    latents = starts.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([latents], settings.learning_rate)
    schedule = CosineAnnealingLR(optimizer, settings.iterations)
    inputs = [latents] if classes is None else [latents, classes]
    with evaluating(network), frozen([network]), torch.enable_grad():
        for _ in range(settings.iterations):
            optimizer.zero_grad(set_to_none=True)
            objective(network(*inputs).float(), target, latents, settings).sum().backward()
            optimizer.step()
            schedule.step()
    return latents.detach()


@dataclass(frozen=True)
class Endpoint:
    """One end of a walk as the user gives it: a sample, or a real image that is to be projected.

    Args:
        which: ``from`` or ``to``, for messages.
        seed: seed of the sample.
        sample: its number in the seed; None for 0.
        image: file of the real image.
        slice_index: axial slice of a volume, counted from the feet; None for the middle one.
        category: name of the class; None for the sample's own, or for the one that fits the image best.
    Raises:
        UserError: seed and image are both given, or a setting of one of them without it.
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
        if self.sample is not None and self.seed is None:
            raise UserError(f"--{self.which}_sample belongs to --{self.which}_seed; give that too")
        if self.slice_index is not None and self.image is None:
            raise UserError(f"--{self.which}_slice belongs to --{self.which}_image; give that too")

    @property
    def has_latent(self) -> bool:
        """Whether this gives more than a class."""
        return self.seed is not None or self.image is not None

    @property
    def numbers(self) -> tuple[int, int]:
        """Seed and number of the sample."""
        sample = check_int(f"{self.which}_sample", self.sample or 0)
        return check_int(f"{self.which}_seed", self.seed), sample

    @property
    def name(self) -> str:
        """The end in words."""
        return f"seed {self.seed} sample {self.sample or 0}" if self.image is None else Path(self.image).name


def check_ends(start: Endpoint, stop: Endpoint, class_names: Sequence[str]) -> None:
    """Checks that there is a walk between two ends.

    Args:
        start: must give a latent.
        stop: must give a latent, a class, or both.
        class_names: the model's classes; empty for an unconditional model.
    Raises:
        UserError: no latent to start from, nothing to go to, or an unknown class.
    """
    if not start.has_latent:
        raise UserError("a walk needs a start: give --from_seed or --from_image")
    for end in (start, stop):
        if end.category is not None:
            chosen_classes([end.category], class_names)
    if not stop.has_latent and stop.category is None:
        change = ", or --to_class to change the class alone" if class_names else ""
        raise UserError(f"a walk needs an end: give --to_seed or --to_image{change}")


class LatentPoint(NamedTuple):
    """An end of a walk in the latent space.

    Attributes:
        latent: (L,).
        condition: class index, a scalar; None for unconditional models.
        real: the image that was projected, (1, 1, S, S) in [-1, 1]; None for samples.
        report: origin of the point and quality of a projection, as plain numbers and texts.
    """

    latent: Tensor
    condition: Tensor | None
    real: Tensor | None
    report: dict[str, Any]


@dataclass(frozen=True)
class LatentSpace:
    """The latent space of a trained generator, in which ends are located.

    Args:
        network: the trained generator.
        info: the facts beside the model.
        image_size: side of its images.
        seed: seed of the candidates that projections begin with.
        settings: of projections.
        hu_offset, source_range: of real images, see `common.inference.checkpoint.image_as_in_training`.
    """

    network: Generator
    info: Mapping[str, Any]
    image_size: int
    seed: int = 0
    settings: ProjectionSettings = field(default_factory=ProjectionSettings)
    hu_offset: float | None = None
    source_range: Sequence[float] | None = None

    @property
    def class_names(self) -> list[str]:
        """The classes that the model is conditioned on."""
        return class_names_of(self.network.classes, self.info)

    def locate(self, end: Endpoint, start: LatentPoint | None = None) -> LatentPoint:
        """Locates an end; what it leaves open is taken from ``start``.

        Raises:
            UserError: an image that cannot be read, or an unknown class.
        """
        if end.image is not None:
            return self._project(end)
        if end.seed is None and start is not None:
            return LatentPoint(start.latent, self._class(end), None, {"latent_of": "start"})
        seed, sample = end.numbers
        condition = self._class(end) if start is None or end.category is not None else start.condition
        latent = self._latents(seed, [sample])[0]
        return LatentPoint(latent, condition, None, {"seed": seed, "sample": sample})

    def _class(self, end: Endpoint) -> Tensor | None:
        """Returns the named class, or the sample's own (`common.inference.sampling.SampleNumbers`)."""
        if not self.class_names:
            return None
        if end.category is None:
            return self._class_indices([end.numbers[1] % len(self.class_names)])[0]
        return self._class_indices(chosen_classes([end.category], self.class_names))[0]

    def _project(self, end: Endpoint) -> LatentPoint:
        assert end.image is not None
        values = (self.hu_offset, self.source_range)
        real = image_as_in_training(end.image, self.info, self.image_size, end.slice_index, *values)
        target, count = real.to(self._device), self.settings.drawn
        classes = None
        if self.class_names:  # the named class for each candidate, or all classes in turn
            named = None if end.category is None else chosen_classes([end.category], self.class_names)
            classes = self._class_indices((named or list(range(len(self.class_names)))) * count)[:count]
        candidates = self._latents(self.seed, range(count))
        result = project(self.network, target, candidates, classes, self.settings)
        report: dict[str, Any] = {"image": str(end.image)}
        for name, image in (("reconstruction", result.image), ("best_draw", result.drawn)):
            metrics = image_metrics(image, target)
            report[name] = {metric: round(float(value), 4) for metric, value in metrics.items()}
        return LatentPoint(result.latent, result.condition, real, report)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _latents(self, seed: int, samples: Sequence[int]) -> Tensor:
        return latents(seed, samples, self.network.latent).to(self._device)

    def _class_indices(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


class LatentWalk:
    """Draws images at equal steps from one latent to another and, for conditional models, between classes.

    Writes ``interpolation.png``, a strip that includes the projected real images, ``interpolation.gif``, and
    ``interpolation.json`` with the latents of the ends and the quality of projections. If the second end is
    only a class, the latent stays: a walk through severity.

    Args:
        space: the model and its latent space.
        start, stop: the ends.
        output_dir: created if missing.
        steps: number of images, including both ends.
        path: ``linear`` or ``spherical``.
        provenance: what draws the images; written to ``interpolation.json`` too.
    Raises:
        UserError: no walk between these ends, fewer than two steps, or an unknown path.
    """

    def __init__(
        self,
        space: LatentSpace,
        start: Endpoint,
        stop: Endpoint,
        output_dir: str | os.PathLike[str],
        steps: int = 8,
        path: str = "linear",
        provenance: Provenance = UNKNOWN,
    ) -> None:
        self.space, self.start, self.stop, self.provenance = space, start, stop, provenance
        self.folder, self.steps, self.path = Path(output_dir), check_int("steps", steps, least=2), path
        check_path(path)
        check_ends(start, stop, space.class_names)

    def run(self) -> None:
        """Locates the ends, draws and writes; prints the quality of projections and the folder."""
        first = self.space.locate(self.start)
        last = self.space.locate(self.stop, first)
        latents, classes = interpolate(first.latent, last.latent, self.steps, self.path), None
        if first.condition is not None and last.condition is not None:
            shares = torch.linspace(0, 1, self.steps, device=first.condition.device)
            classes = torch.lerp(first.condition, last.condition, shares)  # (steps,)
        self._write(draw_images(self.space.network, latents, classes), classes, first, last)
        for end, point in ((self.start, first), (self.stop, last)):
            if point.real is not None:
                print(f"{end.name}: {_projection_quality(point.report)}")
        goal = self.stop.name if self.stop.has_latent else f"class {self.stop.category}"
        print(f"{self.steps} images from {self.start.name} to {goal}, {self.path}, in {self.folder}")

    def _write(self, images: Tensor, classes: Tensor | None, first: LatentPoint, last: LatentPoint) -> None:
        captions = [f"{number} of {self.steps}" for number in range(1, self.steps + 1)]
        if classes is not None:
            mixtures = [class_mixture(float(index), self.space.class_names) for index in classes]
            captions = [f"{caption}: {mixture}" for caption, mixture in zip(captions, mixtures, strict=True)]
        tiles = [images.cpu()]
        if first.real is not None:
            tiles, captions = [first.real, *tiles], [REAL, *captions]
        if last.real is not None:
            tiles, captions = [*tiles, last.real], [*captions, REAL]
        save_strip(self.folder / STRIP, torch.cat(tiles), captions, provenance=self.provenance)
        save_animation(self.folder / ANIMATION, images, self.provenance)
        record = self.provenance.record(path=self.path, steps=self.steps)
        write_json(self.folder / RECORD, {**record, "from": _as_json(first), "to": _as_json(last)})


def class_mixture(index: float, names: Sequence[str]) -> str:
    """Describes a class index between two whole ones.

    Example:
        >>> class_mixture(1.25, ["none", "mild", "moderate"])
        'mild 75 %, moderate 25 %'
    """
    below = int(index)
    share = round(100 * (index - below))
    parts = [(100 - share, below), (share, below + 1)]
    return ", ".join(names[k] if part == 100 else f"{names[k]} {part} %" for part, k in parts if part)


def _projection_quality(report: Mapping[str, Any]) -> str:
    texts = []
    for values in (report["reconstruction"], report["best_draw"]):
        ssim = [f"SSIM {values['ssim']:.3f}"] if "ssim" in values else []
        texts.append(", ".join([*ssim, f"MAE {values['mae']:.3f}", f"PSNR {values['psnr']:.1f} dB"]))
    return f"reconstructed with {texts[0]} (the best of the draws before: {texts[1]})"


def _as_json(point: LatentPoint) -> dict[str, Any]:
    """Returns an end as JSON, including its latent, so that the walk can be repeated."""
    condition = {} if point.condition is None else {"class": float(point.condition)}
    return {**point.report, **condition, "latent": [round(float(value), 6) for value in point.latent]}

"""``run interpolation``: from one sample or real image to another through the latent space, as pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bundles.dcgan_covid.ends import End, check_ends
from bundles.dcgan_covid.interpolation import check_path, interpolate
from bundles.dcgan_covid.placing import Place, Placing
from common.files import write_json
from common.inference.drawing import draw_images
from common.inference.strips import save_animation, save_strip
from common.numbers import whole_number
from common.provenance import UNKNOWN, Provenance

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
        self.folder, self.steps, self.path = Path(output_dir), whole_number("steps", steps, least=2), path
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

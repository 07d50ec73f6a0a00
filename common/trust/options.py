"""What a report is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.data.intensity import Window
from common.errors import UserError
from common.training.in_memory import Budget

FIDELITY, FAITHFULNESS, UTILITY, PRIVACY = "fidelity", "faithfulness", "utility", "privacy"
SECTIONS = (FIDELITY, FAITHFULNESS, UTILITY, PRIVACY)
JUDGE = 5
"""How many times the iterations of a training for the utility, of which there are some twenty."""


@dataclass(frozen=True)
class Options:
    """The command line's.

    Attributes:
        real: images that the generator was trained on, or all of which it was trained on some.
        output: the page's file.
        bundle: folder of the bundle whose model made the images: it says how images are read, and can draw
            some. None for images of any other generator.
        heldout: images of other patients; None splits ``real`` by patient, which needs a bundle.
        synthetic: images in question, or where to put those that are drawn.
        condition: their conditions, files of equal names.
        generate: how many to draw from the bundle; 0 for none.
        patient_pattern: what in file names is the patient; None for the model's own or the field's ways.
        ckpt_path: the model; None for the bundle's own.
        sections: which, of `SECTIONS`.
        extractor, extractor_weights: see `common.metrics.features.extractor_by_name`.
        max_similarity: of the release gate; None calibrates it.
        hu_offset: what to add to values that are no HU, see `common.data.intensity.offset_to_hu`.
        release: folder for the images that the gate lets through; None for no such copy.
        seed: of all that is drawn.
        seeds: trainings of each kind, of the utility.
        budget: of each training of the utility; the one segmenter of the faithfulness has `JUDGE` times as
            many iterations, see ``judge``.
        resamples: of the bootstrap.
        device: where networks run.
        settings: further ones of the bundle's inference.
        window: without a bundle, HU that become black and white; None for ``lung``.
        image_size: without a bundle, side of the squares to which slices are brought, in pixels.
    Raises:
        UserError: an unknown section, a release without the gate, what needs a bundle without one, or the
            other way round.
    """

    real: Path
    output: Path
    bundle: Path | None = None
    heldout: Path | None = None
    synthetic: Path | None = None
    condition: Path | None = None
    generate: int = 0
    ckpt_path: Path | None = None
    patient_pattern: str | None = None
    sections: Sequence[str] = SECTIONS
    extractor: str = "gridvgg"
    extractor_weights: Path | None = None
    max_similarity: float | None = None
    release: Path | None = None
    seed: int = 0
    seeds: int = 3
    budget: Budget = field(default_factory=Budget)
    resamples: int = 500
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    window: Window | None = None
    image_size: int | None = None
    hu_offset: float | None = None

    @property
    def judge(self) -> Budget:
        """Of the segmenter that judges faithfulness: a weak one can say nothing."""
        return replace(self.budget, iterations=JUDGE * self.budget.iterations)

    def __post_init__(self) -> None:
        unknown = [name for name in self.sections if name not in SECTIONS]
        if unknown or not self.sections:
            raise UserError(f"sections {', '.join(unknown) or 'none'}: choose of {', '.join(SECTIONS)}")
        if self.release is not None and PRIVACY not in self.sections:
            raise UserError("--release needs the gate's answer: take privacy into --sections")
        if self.release is not None and self.generate and self.synthetic is None:
            raise UserError("--release copies files: give with --synthetic a folder for the drawn ones")
        self._check_reading()

    def _check_reading(self) -> None:
        """A model says how images are read; without one the caller does, and nothing can be drawn."""
        reading = {name: getattr(self, name) for name in ("window", "image_size")}
        given = [name for name, value in reading.items() if value is not None]
        if self.bundle is not None and given:
            raise UserError(f"--{given[0]}: the bundle's model says how images are read; leave it out")
        if self.bundle is not None:
            return
        if self.generate or self.ckpt_path is not None:
            name = "generate" if self.generate else "ckpt_path"
            raise UserError(f"--{name} needs the bundle of the model; give it with --bundle")
        if self.heldout is None:
            raise UserError(
                "no held-out images: without --bundle nothing tells which patients the generator was trained "
                "on; give those it has not seen with --heldout"
            )

"""What a report is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
        bundle: its folder.
        real: images that the generator was trained on, or all of which it was trained on some.
        output: the page's file.
        heldout: images of other patients; None splits ``real`` by patient.
        synthetic: images in question, or where to put those that are drawn.
        condition: their conditions, files of equal names.
        generate: how many to draw from the bundle; 0 for none.
        ckpt_path: the model; None for the bundle's own.
        sections: which, of `SECTIONS`.
        extractor, extractor_weights: see `common.metrics.features.extractor_by_name`.
        max_similarity: of the release gate; None calibrates it.
        release: folder for the images that the gate lets through; None for no such copy.
        seed: of all that is drawn.
        seeds: trainings of each kind, of the utility.
        budget: of each training of the utility; the one segmenter of the faithfulness has `JUDGE` times as
            many iterations, see ``judge``.
        resamples: of the bootstrap.
        device: where networks run.
        settings: further ones of the bundle's inference.
    Raises:
        UserError: an unknown section, or a release without the gate.
    """

    bundle: Path
    real: Path
    output: Path
    heldout: Path | None = None
    synthetic: Path | None = None
    condition: Path | None = None
    generate: int = 0
    ckpt_path: Path | None = None
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

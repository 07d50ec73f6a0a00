"""What a trust report says as plain values: sections make them, the page and ``trust.json`` show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.metrics.bootstrap import Value
from common.trust.gate import OPEN
from common.trust.image_sets import ImageSet, Sets

HIGHER, LOWER, AS_REAL = "higher", "lower", "as real"


@dataclass(frozen=True)
class Figure:
    """One number with everything needed to read it.

    Attributes:
        name: the measure, with its extractor or classifier: ``fid_gridvgg``.
        value: with interval and sample size.
        better: ``higher``, ``lower`` or ``as real``.
        baselines: by name (``real_real``, ``mean_image``, ...): good and bad values on this set.
        extractor: the network behind it; empty where there is none.
        seed: of its random draws.
        note: a sentence for the reader; empty for none.

    Example:
        >>> figure = Figure("dice", Value(0.8, 0.7, 0.9, 20), HIGHER, {"floor": Value(0.1, 0.1, 0.1, 20)})
        >>> figure.plain()["baselines"]["floor"]["mean"]
        0.1
    """

    name: str
    value: Value
    better: str
    baselines: Mapping[str, Value] = field(default_factory=dict)
    extractor: str = ""
    seed: int = 0
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """For ``trust.json``."""
        return {
            "name": self.name,
            **self.value.plain(),
            "better": self.better,
            "baselines": {name: value.plain() for name, value in self.baselines.items()},
            "extractor": self.extractor,
            "seed": self.seed,
            "note": self.note,
        }


@dataclass(frozen=True)
class Line:
    """A curve: points, each with an interval where known; all sequences have the same length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """A diagram of curves (``kind`` line) or of distributions (``kind`` steps: y between the edges x)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    caption: str = ""
    kind: str = "line"


@dataclass(frozen=True)
class Picture:
    """A sheet of images as PNG bytes with a caption."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        name: ``fidelity``, ``faithfulness``, ``utility`` or ``privacy``.
        title: of the page's section.
        statement: the answer in words.
        warnings: what a reader must know before trusting the figures.
        facts: further plain data for ``trust.json`` (thresholds, lists of files).
    """

    name: str
    title: str
    statement: str
    figures: Sequence[Figure] = ()
    plots: Sequence[Plot] = ()
    pictures: Sequence[Picture] = ()
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For ``trust.json``: all but the pictures."""
        return {
            "title": self.title,
            "statement": self.statement,
            "figures": [figure.plain() for figure in self.figures],
            "plots": [asdict(plot) for plot in self.plots],
            "warnings": list(self.warnings),
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class GateState:
    """Whether the set may be shared, and why; ``verdict`` as in `common.trust.gate.Gate`."""

    verdict: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SetFacts:
    """A set of images in one line."""

    name: str
    images: int
    patients: int
    source: str
    labelled: bool

    @classmethod
    def of(cls, name: str, images: ImageSet, source: str) -> SetFacts:
        """Counts a set; patients are not counted for synthetic images."""
        patients = 0 if name == "synthetic" else len(set(images.patients))
        return cls(name, len(images), patients, source, images.labels is not None)


@dataclass(frozen=True)
class Report:
    """The whole report.

    Attributes:
        bundle: the name of the bundle, or of the folder of images.
        facts: what else is needed to get the same numbers: commit, seed, extractor, settings.
        sets: what was compared.
        sections: the answers.
        gate: None where privacy was left out.
        examples: a sheet of the sets' images.
    """

    bundle: str
    facts: Mapping[str, str]
    sets: Sequence[SetFacts]
    sections: Sequence[Section]
    gate: GateState | None = None
    examples: Picture | None = None

    def plain(self) -> dict[str, Any]:
        """For ``trust.json``."""
        return {
            "bundle": self.bundle,
            **self.facts,
            "sets": {each.name: _plain_set(each) for each in self.sets},
            "gate": None if self.gate is None else _plain_gate(self.gate),
            "sections": {section.name: section.plain() for section in self.sections},
        }


def set_facts(sets: Sets, sources: Mapping[str, str]) -> list[SetFacts]:
    """The three sets with their sources."""
    named = {"real": sets.real, "heldout": sets.heldout, "synthetic": sets.synthetic}
    return [SetFacts.of(name, images, sources.get(name, "")) for name, images in named.items()]


def _plain_set(facts: SetFacts) -> dict[str, Any]:
    return {
        "images": facts.images,
        "patients": facts.patients,
        "source": facts.source,
        "labelled": facts.labelled,
    }


def _plain_gate(gate: GateState) -> dict[str, Any]:
    return {"verdict": gate.verdict, "open": gate.verdict == OPEN, "reason": gate.reason, **gate.facts}

"""The whole report: what was compared, the sections, the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.trust.gate import OPEN
from common.trust.image_sets import ImageSet, Sets
from common.trust.results import Picture, Section


@dataclass(frozen=True)
class GateState:
    """Whether the set may be given away, and why; ``verdict`` as in `common.trust.gate.Gate`."""

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
        """Of a loaded set; synthetic images belong to nobody."""
        patients = 0 if name == "synthetic" else len(set(images.patients))
        return cls(name, len(images), patients, source, images.labels is not None)


@dataclass(frozen=True)
class Report:
    """All that is said.

    Attributes:
        bundle: whose images these are.
        facts: what else a reader must know to get the same numbers: commit, seed, extractor, settings.
        sets: what was compared.
        sections: the answers.
        gate: None where privacy was not asked for.
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
    """The three sets, with where each comes from."""
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

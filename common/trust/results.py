"""What a trust report says, in plain values: sections write them, the page and ``trust.json`` show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.metrics.bootstrap import Value

HIGHER, LOWER, AS_REAL = "higher", "lower", "as real"


@dataclass(frozen=True)
class Figure:
    """One number with all that is needed to read it.

    Attributes:
        name: of the measure, with its extractor or classifier: ``fid_gridvgg``.
        value: with interval and sample size.
        better: ``higher``, ``lower`` or ``as real``.
        baselines: by name (``real_real``, ``mean_image``, ...): what good and bad are on this set.
        extractor: the network behind it; empty where there is none.
        seed: of its random draws.
        note: a sentence for the reader; empty for none.
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
    """A curve: points with, where known, an interval each. All of the same length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """Curves in one diagram (``kind`` line) or distributions (``kind`` steps: y over the edges x)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    caption: str = ""
    kind: str = "line"


@dataclass(frozen=True)
class Picture:
    """A sheet of images: PNG bytes and what is seen on it."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        name: ``fidelity``, ``faithfulness``, ``utility`` or ``privacy``.
        title: of the page's section.
        statement: the answer in words, which follow the figures whichever way they point.
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

"""What the images of a bank are told apart by: their categories, else nothing or their nodules' sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundles.lung_two_stage.banks import NoduleRecord, SliceRecord
from common.errors import UserError

CATEGORY, DIAMETER, NONE = "category", "diameter", "none"
FALLBACKS = (NONE, DIAMETER)
SIZES = ("small", "medium", "large")
Record = NoduleRecord | SliceRecord


@dataclass(frozen=True)
class Classes:
    """How a record's class is found.

    Args:
        kind: ``category``, ``diameter`` or ``none``.
        names: of the classes, in order.
        bounds_mm: diameters that part small, medium and large nodules.
    """

    kind: str
    names: list[str]
    bounds_mm: tuple[float, ...] = ()

    def name_of(self, record: Record) -> str:
        """The class's name; empty where there are no classes."""
        if self.kind == CATEGORY:
            return str(getattr(record, "category", ""))
        if self.kind == DIAMETER and isinstance(record, NoduleRecord):
            return self.names[int(np.searchsorted(self.bounds_mm, record.diameter_mm, side="right"))]
        return ""

    def metadata(self) -> dict[str, Any]:
        """As plain JSON, to travel with a model."""
        return {"classes": self.names, "classes_by": self.kind, "bounds_mm": list(self.bounds_mm)}


def classes_of(records: Sequence[Record], training: Sequence[int], fallback: str = NONE) -> Classes:
    """The categories where every record has one and there are several; else ``fallback``.

    Args:
        records: of the whole bank.
        training: places of those that are learned from: their terciles part the sizes.
        fallback: ``none``, or ``diameter`` for small, medium and large nodules.
    Raises:
        UserError: no such fallback, or slices by diameter.
    """
    if fallback not in FALLBACKS:
        raise UserError(f"classes by {fallback!r}: choose {' or '.join(FALLBACKS)}")
    categories = {str(getattr(record, "category", "")) for record in records}
    if "" not in categories and len(categories) > 1:
        return Classes(CATEGORY, sorted(categories))
    if fallback == NONE:
        return Classes(NONE, [])
    diameters = [record.diameter_mm for record in records if isinstance(record, NoduleRecord)]
    if len(diameters) < len(records):
        raise UserError("slices have no diameter; take a bank of nodules")
    lower, upper = np.quantile([diameters[place] for place in training], [1 / 3, 2 / 3])
    return Classes(DIAMETER, list(SIZES), (float(lower), float(upper)))

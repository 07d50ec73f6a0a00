"""What Table I compares: methods that find nodules in a scan, whatever they are inside."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.data.nodule_scan import NoduleScan
from common.metrics.froc import Candidate


class Method(Protocol):
    """A trained method.

    Attributes:
        name: as the table shows it.
    """

    name: str

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Where it sees nodules: ``scan`` is the scan's name, ``position_mm`` in the frame of its nodules."""

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """The nodules' mask {0, 1} (Z, H, W) of the scan; None for a method that draws none."""

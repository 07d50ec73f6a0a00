"""Aerated lung in a part of a slice: no body around it, no second lung beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.lungs.morphology import close_slice, components, fill_slice
from common.data.lungs.segmentation import LUNG_HU
from common.data.lungs.threshold import otsu

THRESHOLDS = (-700.0, -250.0)
"""Between these the threshold of a picture of unknown window is looked for."""
CLOSING_MM = 3.0
"""Vessels and nodules at the pleura are closed over when their opening is narrower than twice this."""
LARGEST_HOLE_CM2 = 4.0
"""Larger ones are no vessel; nodules are known anyway."""
LEAST_CM2 = 1.0
"""Smaller regions of air are bronchi or noise."""


def segment_lung_part(hu: NDArray[Any], spacing_mm: float, nominal_hu: bool = False) -> NDArray[np.uint8]:
    """The lung in a part of an axial slice that was cut out within the body.

    Which lung it is cannot be told, and air outside the body would count as lung.

    Args:
        hu: (H, W) HU.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits and its window is unknown: the threshold is found in the part.
    Returns:
        (H, W) uint8: 0 outside, 1 lung with its vessels; nothing where there is none.
    """
    threshold = float(np.clip(otsu(hu), *THRESHOLDS)) if nominal_hu else LUNG_HU
    spacing = (spacing_mm, spacing_mm)
    labels, sizes = components((np.asarray(hu) < threshold)[None])
    lung = (sizes * spacing_mm**2 / 100 >= LEAST_CM2)[labels[0]] & (labels[0] > 0)
    closed = close_slice(lung, CLOSING_MM, spacing)
    return fill_slice(closed, LARGEST_HOLE_CM2, spacing).astype(np.uint8)
